"""DAG `align`: a language model to one that answers as people prefer."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "align",
    """
### Fine-tuning and preferences

`instruct` and `preference` render their data as ChatML, `sft` fine-tunes on instructions, `dpo` aligns with
preferences. Starts when the asset `pretrain` is made; started by hand, give the run key to continue.

指令微调与偏好对齐。资产 `pretrain` 产生后自动启动;手动启动请填写运行标识。
""",
    groups={"tuning": ("instruct", "sft"), "preferences": ("preference", "dpo")},
)
