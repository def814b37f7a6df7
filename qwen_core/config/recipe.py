"""The whole recipe: one section for each stage word, plus `mix`, `model` and `parallel`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.align import Dpo, Sft
from qwen_core.config.base import Section
from qwen_core.config.classifiers import Classifiers
from qwen_core.config.dedup import Dedup
from qwen_core.config.evaluate import Evaluate, Release
from qwen_core.config.filter import Filter
from qwen_core.config.ingest import Ingest
from qwen_core.config.model import Model
from qwen_core.config.parallel import Parallel
from qwen_core.config.retrain import Retrain
from qwen_core.config.tokens import Instruct, Mix, Pack, Preference, Tokenizer
from qwen_core.config.training import Pretrain


class Recipe(Section):
    """Everything that decides what a pipeline run makes."""

    name: str = Field("custom", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Also the MLflow experiment.")
    description: str = ""
    seed: int = Field(42, ge=0, lt=2**32, description="Every random choice derives from it.")
    ingest: Ingest = Ingest()
    classifiers: Classifiers = Classifiers()
    filter: Filter = Filter()
    dedup: Dedup = Dedup()
    mix: Mix = Mix()
    tokenizer: Tokenizer = Tokenizer()
    pack: Pack = Pack()
    model: Model = Model()
    parallel: Parallel = Parallel()
    pretrain: Pretrain = Pretrain()
    instruct: Instruct = Instruct()
    sft: Sft = Sft()
    preference: Preference = Preference()
    dpo: Dpo = Dpo()
    evaluate: Evaluate = Evaluate()
    release: Release = Release()
    retrain: Retrain = Retrain()
