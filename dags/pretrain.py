"""DAG `pretrain`: documents to a language model."""

from operators.pipeline import pipeline_dag

dag = pipeline_dag(
    "pretrain",
    """
### Documents to a language model

`tokenizer` learns a byte-level BPE, `pack` makes fixed-length sequences and the held-out set, `pretrain` trains the
model. Starts when the asset `corpus` is made; started by hand, give the run key to continue.

从语料到语言模型。资产 `corpus` 产生后自动启动;手动启动请填写运行标识。
""",
)
