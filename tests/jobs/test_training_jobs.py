"""Training stages over Ray on tiny models: from imported weights, packed, by adapters; and what is refused."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import ray
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qwen_core.artifacts import Store
from qwen_core.config import Recipe
from qwen_core.config.align import Sft
from qwen_core.data.packed import packed_schema
from qwen_core.errors import ArtifactError, InputError, RecipeError
from qwen_core.jobs import pretrain as job
from qwen_core.jobs.corpus import write_arrow
from qwen_core.jobs.imported import import_model
from qwen_core.jobs.pretrain import check_packed, model_config
from qwen_core.jobs.pretrain import run as run_pretrain
from qwen_core.jobs.runner import run_stage
from qwen_core.jobs.sft import packed_row
from qwen_core.jobs.training import adapters_of, start_of
from qwen_core.model import load_pretrained
from qwen_core.tokenizer import load_tokenizer, render_chat, save_tokenizer
from qwen_core.train.pretrain import PretrainTask
from qwen_core.train.weights import FolderWeights, FreshWeights
from tests.jobs.models import model_folder, tokenizer_of, write_conversations

TRAINING = {"max_steps": 3, "micro_batch_size": 2, "global_batch_size": 2, "warmup_steps": 0, "precision": "fp32"}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def recipe(tmp_path, **sections):
    data = {"inputs": [write_conversations(tmp_path / "data.jsonl")], "max_seq_len": 64}
    given = {"parallel": {"num_workers": 1}, "instruct": data, "sft": TRAINING}
    return Recipe(**given | sections)


def rendered(tmp_path, store, wanted):
    model_folder(tmp_path / "theirs")
    made = import_model(str(tmp_path / "theirs"), wanted, "mine", store)
    instruct, _ = run_stage("instruct", wanted, "mine", store, f"folder:{tmp_path / 'log'}")
    return made["pretrain"], instruct


def packed_files(folder, rows, seq_len=16):
    table = pa.Table.from_pylist(
        [
            {
                "input_ids": ids,
                "document_starts": [0],
                "num_bytes": 10,
                "num_tokens": seq_len,
                "language": "en",
                "source": "s",
            }
            for ids in rows
        ],
        schema=packed_schema(seq_len),
    )
    for split in ("train", "validation"):
        write_arrow(table, str(folder / split / "part-00000.arrow"))
    return [str(folder / split / "part-00000.arrow") for split in ("train", "validation")]


@pytest.mark.slow
@pytest.mark.ray
def test_imported_weights_are_tuned_by_adapters_on_packed_rows(tmp_path, store, mlflow_uri):
    lora = {"enabled": True, "rank": 4, "alpha": 8.0, "dropout": 0.1, "use_rslora": True}
    tuned = TRAINING | {"packing": True, "lora": lora, "learning_rate": 0.02}
    wanted = recipe(tmp_path, sft=tuned)
    base, _ = rendered(tmp_path, store, wanted)
    try:
        manifest, _ = run_stage("sft", wanted, "mine", store, mlflow_uri)
    finally:
        ray.shutdown()
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= set(manifest.files)
    assert "validation/loss/language/zh" in Path(manifest.path("history.jsonl")).read_text()
    assert manifest.metrics["last_validation_loss"] < manifest.metrics["first_validation_loss"]
    ids = torch.tensor([render_chat([{"role": "user", "content": "河?"}], load_tokenizer(manifest.path("model")))[0]])
    merged = load_pretrained(manifest.path("model"))(ids)
    before, after = (load_file(f"{m.path('model')}/model.safetensors") for m in (base, manifest))
    assert set(before) == set(after)
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(wanted.sft.lora.target_modules)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base.path("model")), manifest.path("adapter")
    )
    assert torch.allclose(theirs(ids).logits, merged, atol=1e-4)
    assert json.loads(Path(manifest.path("model"), "generation_config.json").read_text())["eos_token_id"][0] == 319


@pytest.mark.slow
@pytest.mark.ray
def test_pretraining_goes_on_from_a_folder(tmp_path, store, mlflow_uri):
    """The loss before the first step is that of the folder's model; the model section of the recipe counts nothing."""
    model = model_folder(tmp_path / "theirs")
    wanted = Recipe(parallel={"num_workers": 1}, pretrain=TRAINING | {"init_from": str(tmp_path / "theirs")})
    context = pretrain_context(tmp_path, store, wanted, mlflow_uri)
    try:
        outcome = run_pretrain(context)
    finally:
        ray.shutdown()
    from qwen_core.train.task import Alone

    files = [[f"{tmp_path}/pack/{split}/part-00000.arrow"] for split in ("train", "validation")]
    expected = PretrainTask(*files, 2).validate(Alone(model))
    assert outcome.metrics["first_validation_loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert outcome.metrics["last_validation_loss"] < outcome.metrics["first_validation_loss"]
    assert load_pretrained(context.output("model")).config == model.config


def pretrain_context(tmp_path, store, wanted, tracking_uri=None, max_seq_len=16, tokenizer=None):
    """What `pretrain` gets, with packed rows that were made by hand."""
    from qwen_core.stages import STAGES

    save_tokenizer(tokenizer or tokenizer_of(), tmp_path / "tok" / "tokenizer")
    packed_files(tmp_path / "pack", [[(7 * row + column) % 300 for column in range(16)] for row in range(6)])
    files = {f"{split}/part-00000.arrow": 1 for split in ("train", "validation")}
    pack = SimpleNamespace(
        details={"vocab_size": 320, "max_seq_len": max_seq_len},
        files=files,
        fingerprint="p",
        path=lambda name: f"{tmp_path}/pack/{name}",
    )
    made = SimpleNamespace(fingerprint="t", path=lambda name: f"{tmp_path}/tok/{name}")
    run = SimpleNamespace(tracking_uri=tracking_uri, log_figure=lambda *_: None)
    attempt = store.begin(STAGES["pretrain"], wanted, "mine", {}, {})
    if tracking_uri:
        from mlflow.tracking import MlflowClient

        from qwen_core.tracking.runs import StageRun, pipeline_run_id

        parent = pipeline_run_id(tracking_uri, wanted, "mine")
        experiment = MlflowClient(tracking_uri).get_run(parent).info.experiment_id
        run = StageRun(parent, parent, experiment, tracking_uri, "pretrain")
    attempt = dataclasses.replace(attempt, inputs={"pack": pack, "tokenizer": made})
    from qwen_core.jobs.context import Context

    return Context(STAGES["pretrain"], wanted, store, attempt, run)


def test_continued_training_refuses_what_does_not_fit(tmp_path, store):
    def refused(words, error=InputError, folder="theirs", **changes):
        wanted = Recipe(pretrain=TRAINING | {"init_from": str(tmp_path / folder)})
        with pytest.raises(error, match=words):
            run_pretrain(pretrain_context(tmp_path, store, wanted, **changes))

    refused("is no model: neither a folder", ArtifactError)
    model_folder(tmp_path / "theirs")
    refused(r"a sequence of 512 tokens, .* reach 256 .*Lower pack.max_seq_len", max_seq_len=512)
    refused(
        r"the corpus was made with another tokenizer than .*Set tokenizer.import_path to .*theirs",
        tokenizer=tokenizer_of(310),
    )
    model_folder(tmp_path / "small", vocab_size=310)
    refused(r"its largest id is 319, the embedding of .*small has 310 rows", folder="small")


def test_with_a_new_tokenizer_the_model_starts_anew_where_the_recipe_says_so(tmp_path, store):
    model_folder(tmp_path / "theirs")
    changes = {
        "init_from": str(tmp_path / "theirs"),
        "if_new_tokenizer": "start_anew",
        "continued": {"steps_ratio": 0.4},
    }
    wanted = Recipe(pretrain=TRAINING | {"max_steps": 10} | changes)
    start, section, told = job._start(pretrain_context(tmp_path, store, wanted, tokenizer=tokenizer_of(310)))
    assert isinstance(start.source, FreshWeights) and section.max_steps == 10
    assert (
        told.startswith("starts anew from seed 42") and "the tokenizer is new: the corpus was made with another" in told
    )
    start, section, told = job._start(pretrain_context(tmp_path, store, wanted))
    assert isinstance(start.source, FolderWeights) and section.max_steps == 4
    assert told.startswith("goes on from") and told.endswith("for 4 steps")


def test_a_training_that_goes_on_has_steps_warm_up_and_rates_of_its_own():
    settings = {"max_steps": 100, "warmup_steps": 20, "learning_rate": 0.004, "muon_learning_rate": 0.02}
    ratios = {"steps_ratio": 0.1, "warmup_ratio": 0.3, "learning_rate_ratio": 0.5}
    obeyed = job.continued(Recipe(pretrain=settings | {"continued": ratios}).pretrain)
    assert (obeyed.max_steps, obeyed.warmup_steps) == (10, 3)
    assert (obeyed.learning_rate, obeyed.muon_learning_rate) == (0.002, 0.01)
    plain = Recipe(pretrain=settings).pretrain
    assert job.continued(plain) == plain
    short = job.continued(Recipe(pretrain=settings | {"continued": {"steps_ratio": 0.001}}).pretrain)
    assert (short.max_steps, short.warmup_steps) == (1, 1)  # no schedule reaches beyond its end


def test_packed_data_that_is_empty_broken_or_beyond_the_vocabulary_is_refused(tmp_path):
    files = packed_files(tmp_path, [[1] * 15 + [99]])
    check_packed(files, 100)
    with pytest.raises(InputError, match=r"holds the token id 99, the model's vocabulary has 99 entries"):
        check_packed(files, 99)
    empty = packed_files(tmp_path / "empty", [])
    check_packed(files + empty, 100)
    with pytest.raises(InputError, match="the data of 'pack' holds no sequence at all: give more input"):
        check_packed(empty, 100)
    Path(files[0]).write_bytes(Path(files[0]).read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"cannot be read as an Arrow file .*run the stage that makes it again"):
        check_packed(files, 100)


def test_a_recipe_with_too_small_a_vocabulary_or_too_few_positions_is_refused():
    with pytest.raises(RecipeError, match=r"model.vocab_size \(310\) is smaller than the tokenizer's \(320\)"):
        model_config(Recipe(model={"vocab_size": 310}).model, 320, 16)
    with pytest.raises(RecipeError, match=r"\(2048\) is smaller than pack.max_seq_len \(4096\)"):
        model_config(Recipe().model, 320, 4096)


def test_instructions_that_do_not_fit_the_model_are_refused_before_a_worker_starts(tmp_path, store):
    base, instruct = rendered(tmp_path, store, recipe(tmp_path))
    start_of(base, instruct, "instruct")
    longer = instruct.model_copy(update={"details": instruct.details | {"max_tokens": 257}})
    with pytest.raises(InputError, match=r"'instruct' holds a sequence of 257 .*Lower instruct.max_seq_len"):
        start_of(base, longer, "instruct")
    beyond = instruct.model_copy(update={"details": instruct.details | {"max_token_id": 352}})
    with pytest.raises(InputError, match="holds the token id 352, the model's vocabulary has 352 entries"):
        start_of(base, beyond, "instruct")
    save_tokenizer(tokenizer_of(310), instruct.path("tokenizer"))
    with pytest.raises(InputError, match=r"than the model of 'pretrain': 3 of 310 .*under one run key"):
        start_of(base, instruct, "instruct")
    Path(base.path("model"), "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ArtifactError, match="is no safetensors file"):
        start_of(base, instruct, "instruct")


def test_pairs_in_another_template_than_the_model_learnt_are_refused(tmp_path, store):
    wanted = recipe(tmp_path, instruct={"inputs": [write_conversations(tmp_path / "d.jsonl")], "template": "alpaca"})
    base, instruct = rendered(tmp_path, store, wanted)
    tuned = base.model_copy(update={"stage": "sft"})  # learnt ChatML
    with pytest.raises(InputError, match=r"rendered with another chat template .*give preference.template and prefer"):
        start_of(tuned, instruct, "preference")


def test_rows_for_packing_are_long_enough_or_refused():
    data = SimpleNamespace(details={"max_tokens": 60}, config={"instruct": {"max_seq_len": 64}})
    assert packed_row(Sft(), data) is None
    assert packed_row(Sft(packing=True), data) == 64
    assert packed_row(Sft(packing=True, packed_seq_len=60), data) == 60
    with pytest.raises(RecipeError, match=r"packed_seq_len \(59\) is less than .* \(60 tokens\)"):
        packed_row(Sft(packing=True, packed_seq_len=59), data)
    with pytest.raises(RecipeError, match=r"means nothing without sft.packing"):
        packed_row(Sft(packed_seq_len=60), data)


def test_adapters_that_cannot_be_trained_are_refused():
    assert adapters_of("sft", Recipe()) is None and adapters_of("pretrain", Recipe()) is None
    lora = {"lora": {"enabled": True, "dropout": 0.1}}
    assert adapters_of("dpo", Recipe(dpo=lora)).scaling == 2.0
    with pytest.raises(RecipeError, match=r"dpo.lora.enabled works with ZeRO alone: parallel.tensor \(2\) and"):
        adapters_of("dpo", Recipe(dpo=lora, parallel={"tensor": 2}))
    with pytest.raises(RecipeError, match=r"sft.lora.dropout \(0.1\) cannot be drawn again"):
        adapters_of("sft", Recipe(sft=lora, model={"gradient_checkpointing": True}))
