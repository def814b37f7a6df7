"""DAG `corpus`: raw text to clean, deduplicated documents."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "corpus",
    """
### Raw text to clean documents

`ingest` reads the sources and labels the language, `classifiers` trains the quality and toxicity models, `filter`
drops what the rules reject and counts each reason, `dedup` keeps one of each cluster of duplicates.

**Start it** with a recipe; all later DAGs follow by themselves. Stages whose result exists are not run again.
""",
)
