"""DAG `align`: a language model to one that answers as people prefer."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "align",
    """
### Fine-tuning and preferences

`instruct` and `preference` render their data as ChatML, `sft` fine-tunes on instructions, `dpo` aligns with
preferences. Starts when the asset `pretrain` is made; started by hand, give the run key to continue.
""",
)
