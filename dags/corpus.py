"""DAG `corpus`: raw text to clean, deduplicated documents."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "corpus",
    """
### Raw text to clean documents

`ingest` reads the sources and labels the language, `classifiers` trains the quality and toxicity models, `filter`
drops what the rules reject and counts each reason, `dedup` keeps one of each cluster of duplicates.

**Start it** with a recipe; all later DAGs follow by themselves. Stages whose result exists are not run again. A
retraining that is due (DAG `retrain`) starts it too. To take in one day after another: DAG `corpus_daily`.

从原始文本到干净、去重的语料。填写配方即可启动,后续 DAG 自动接续;已完成的阶段不会重跑。
""",
)
