"""What the Airflow pages say of each task: what it reads and makes, where its figures are, what to do when it fails."""

from __future__ import annotations

from typing import NamedTuple

from qwen_core.stages import STAGES


class Told(NamedTuple):
    """Of one task: in one line each what it reads, what it makes, its figures in MLflow, its usual trouble; and all of
    it in short in Chinese.
    """

    reads: str
    makes: str
    figures: str
    trouble: str
    chinese: str


_TOLD = {
    "ingest": Told(
        "the files of `ingest.inputs`; after `ingest.base` only those that it has not read",
        "documents as Parquet parts: text, source, language, script, time",
        "`rows`, `raw_bytes`, `files`, `dropped.*`; plots of languages and lengths",
        "An input that is missing or unreadable is named in the last lines. Paths must be visible to the Ray workers.",
        "读取来源文件,抽取正文,规范化,切分,识别语言。",
    ),
    "classifiers": Told(
        "labelled examples and samples of `ingest`",
        "a quality and a toxicity model (fastText)",
        "precision and recall on held-out samples",
        "Too few examples: see `classifiers` in the recipe.",
        "训练质量与毒性分类器。",
    ),
    "filter": Told(
        "`ingest` and the models of `classifiers`",
        "the documents that pass, personal data masked, evaluation sets left out",
        "`dropped.<reason>`, the plot `funnel`",
        "Everything dropped: the reasons are listed; loosen `filter`, or look with `qwen-core inspect`.",
        "按规则、分类器与词表过滤,统计每个原因。",
    ),
    "dedup": Told(
        "`filter`",
        "one document of each cluster of duplicates: the corpus",
        "`dropped.exact`, `dropped.near`, cluster sizes",
        "Out of memory: lower `dedup.num_buckets`, or give the Ray cluster more.",
        "精确与近似去重(MinHash LSH)。",
    ),
    "tokenizer": Told(
        "a sample of the corpus by the weights of `mix`",
        "a byte-level BPE with Qwen's pre-tokenisation",
        "bytes per token by language",
        "A vocabulary larger than the sample can fill: lower `tokenizer.vocab_size`.",
        "训练字节级 BPE 分词器。",
    ),
    "pack": Told(
        "the corpus and the tokenizer",
        "fixed-length sequences of tokens, and the held-out set",
        "`tokens`, `bytes_per_token`, shares of languages and sources",
        "No sequence came out: the corpus is shorter than `pack.max_seq_len`.",
        "编码并打包为定长序列,留出验证集。",
    ),
    "pretrain": Told(
        "the sequences of `pack`; weights of `pretrain.init_from`, where it is set",
        "a language model (Hugging Face format)",
        "`train_loss`, `validation_loss`, `bits_per_byte` by step, tokens/s, memory",
        "It goes on from its last checkpoint when it is run again. Diverged: lower the learning rate. "
        "Out of GPU memory: lower `pretrain.micro_batch_size`.",
        "预训练语言模型;重跑时从最近的检查点继续。",
    ),
    "instruct": Told(
        "instruction data and the tokenizer",
        "conversations as tokens",
        "`rows`, `tokens`, `dropped.*`",
        "Records without the named fields: see `instruct` in the recipe.",
        "把指令数据渲染为对话。",
    ),
    "sft": Told(
        "the pretrained model and `instruct`",
        "a model that answers",
        "`train_loss`, `validation_loss` on answers",
        "As for `pretrain`.",
        "指令微调,只在回答上计算损失。",
    ),
    "preference": Told(
        "preference pairs and the tokenizer",
        "pairs of chosen and rejected answers as tokens",
        "`rows`, `dropped.*`",
        "Records without the named fields: see `preference` in the recipe.",
        "把偏好数据渲染为成对回答。",
    ),
    "dpo": Told(
        "the fine-tuned model and `preference`",
        "the aligned model",
        "`train_loss`, reward margin, preference accuracy",
        "As for `pretrain`; a falling margin: lower `dpo.beta` or the learning rate.",
        "直接偏好优化(DPO)。",
    ),
    "evaluate": Told(
        "the three models and the held-out sets",
        "measures and sample answers",
        "`<model>.bits_per_byte` by language, `preference_accuracy`, `answer_loss`, `samples.md`",
        "Out of GPU memory while a training runs beside it: keep the pool `training` at the GPUs' number.",
        "在留出集上评测并生成样例。",
    ),
    "release": Told(
        "measures of this model and of the champion",
        "a version in MLflow's registry, alias `challenger`, with model card and release notes",
        "the gate's table; the decision and its reason",
        "MLflow unreachable: it is tried again.",
        "登记模型,与现任冠军比较。",
    ),
    "plan": Told(
        "the sources, the corpus so far, the champion",
        "the settings of a retraining, or a reason why there is none: then the run is green, its tasks skipped",
        "nothing yet",
        "A recipe's fault is listed. 'nothing to do' is no fault.",
        "检查有无新数据;没有则跳过并说明原因。",
    ),
    "approve": Told(
        "the gate's table",
        "a person's answer, under *Required Actions*",
        "the note is kept with the version",
        "Nobody answered in time: the version stays challenger; `qwen-core promote` still makes it champion.",
        "等待人工审批;未答复则保留现有模型。",
    ),
    "promote": Told(
        "the gate's decision and the answer",
        "the alias `champion` on the new version; the asset `champion`",
        "tags of the version and of the registered model",
        "Run it again: the alias moves once.",
        "把别名 champion 指向新版本。",
    ),
    "rollback": Told(
        "the history of the alias, kept in the registry",
        "the alias `champion` on the version before, or on the one that is named; the asset `champion`",
        "tags of both versions",
        "No version before it: name one.",
        "把别名 champion 退回到上一个版本。",
    ),
    "sweep": Told(
        "the running Ray jobs, and the states of their tasks",
        "nothing: it stops what no task waits for; XCom has the jobs' names",
        "nothing",
        "Ray or Airflow did not answer: the next hour tries again.",
        "停止已无任务等待的 Ray 作业。",
    ),
    "turn": Told(
        "the DAG runs that are under way",
        "nothing: it waits until those before have come to their end",
        "nothing",
        "It waits for ever: a DAG run hangs; mark that one as failed.",
        "等待前一次运行结束,保证先后顺序。",
    ),
}


def task_page(word: str) -> str:
    """Write a task's page.

    Args:
        word: The stage, or another task.

    Returns:
        Markdown.
    """
    told = _TOLD[word]
    stage = STAGES.get(word)
    head = f"{stage.summary}. Recipe: `{'`, `'.join(stage.sections)}`." if stage else ""
    lines = [
        *([head] if head else []),
        f"- **Reads** {told.reads}",
        f"- **Makes** {told.makes}",
        f"- **In MLflow** {told.figures} (button *MLflow run*)",
        f"- **When it fails** {told.trouble}",
        f"\n{told.chinese}",
    ]
    return "\n".join(lines)
