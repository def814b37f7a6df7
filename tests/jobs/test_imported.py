"""A model of somebody else's as artifacts of a run, and a model of ours as a folder for others."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from qwen_core.artifacts import Store
from qwen_core.cli.export import export
from qwen_core.cli.import_ import import_
from qwen_core.config import Recipe
from qwen_core.errors import ArtifactError, InputError
from qwen_core.jobs.exported import export_model, parse_size
from qwen_core.jobs.found import find_model
from qwen_core.jobs.imported import import_model
from qwen_core.jobs.runner import run_stage
from qwen_core.jobs.sources import origin_hashes
from qwen_core.model import load_pretrained
from qwen_core.tokenizer import lay_template, load_tokenizer
from tests.jobs.models import model_folder, tokenizer_of, write_conversations

OWN_TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\nOWN ' + m.content + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def recipe(tmp_path, **sections):
    data = write_conversations(tmp_path / "data.jsonl")
    return Recipe(**{"instruct": {"inputs": [data], **sections.pop("instruct", {})}, **sections})


def test_an_imported_folder_is_what_tokenizer_and_pretrain_make(tmp_path, store):
    model = model_folder(tmp_path / "theirs")
    made = import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store)
    assert set(store.of_run("mine")) == {"tokenizer", "pretrain"}
    assert made["pretrain"].inputs == {"tokenizer": made["tokenizer"].uri}
    assert made["tokenizer"].details["vocab_size"] == 320
    loaded = load_pretrained(made["pretrain"].path("model"))
    ids = torch.tensor([[5, 9, 33]])
    assert torch.equal(loaded(ids), model(ids))
    assert made["pretrain"].metrics["parameters"] == sum(p.numel() for p in model.parameters())
    AutoTokenizer.from_pretrained(made["pretrain"].path("model"))
    # the same again is the same artifact; other weights are another one
    assert (
        import_model(str(tmp_path / "theirs"), recipe(tmp_path), "again", store)["pretrain"].uri == made["pretrain"].uri
    )
    model_folder(tmp_path / "theirs", initializer_range=0.5)
    other = import_model(str(tmp_path / "theirs"), recipe(tmp_path), "other", store)
    assert other["pretrain"].uri != made["pretrain"].uri and other["tokenizer"].uri == made["tokenizer"].uri


@pytest.mark.parametrize(("template", "marks"), [("own", "OWN"), ("chatml", "tool_response"), ("alpaca", "###")])
def test_instruct_runs_on_behind_an_import_and_leaves_its_template(tmp_path, store, template, marks):
    model_folder(tmp_path / "theirs")
    lay_template(tmp_path / "theirs", OWN_TEMPLATE, "<|endoftext|>")
    wanted = recipe(tmp_path, instruct={"template": template})
    import_model(str(tmp_path / "theirs"), wanted, "mine", store)
    manifest, _ = run_stage("instruct", wanted, "mine", store, f"folder:{tmp_path / 'log'}")
    assert manifest.rows == 12 and manifest.details["max_tokens"] > 10
    tokenizer = load_tokenizer(manifest.path("tokenizer"))
    assert marks in tokenizer.template.text and tokenizer.template.end_token == "<|im_end|>"


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path, store):
    model_folder(tmp_path / "theirs")
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "yes"}]} for n in range(4)
    ]
    rows += [
        rows[0],
        {"instruction": "no answer", "output": ""},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"question": "long", "answer": "x " * 500},
        {"question": "tool", "answer": "x", "tools": "{"},
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{"}]},
    ]
    wanted = Recipe(instruct={"inputs": [write_conversations(tmp_path / "data.jsonl", rows)]})
    import_model(str(tmp_path / "theirs"), wanted, "mine", store)
    manifest, _ = run_stage("instruct", wanted, "mine", store, f"folder:{tmp_path / 'log'}")
    assert manifest.rows == 4 and manifest.details["validation_rows"] == 1
    assert manifest.drops == {
        "duplicate": 1,
        "empty_reply": 1,
        "no_assistant_turn": 1,
        "too_long": 1,
        "broken_tools": 1,
        "broken_tool_call": 1,
    }


def test_a_file_without_a_usable_row_is_refused_with_the_reasons(tmp_path, store):
    model_folder(tmp_path / "theirs")
    wanted = Recipe(instruct={"inputs": [write_conversations(tmp_path / "data.jsonl", [{"a": 1}, {"b": 2}])]})
    import_model(str(tmp_path / "theirs"), wanted, "mine", store)
    with pytest.raises(InputError, match=r"0 usable records in .*data.jsonl.*dropped: \{'unknown_format': 2\}"):
        run_stage("instruct", wanted, "mine", store, f"folder:{tmp_path / 'log'}")


def test_a_tokenizer_that_does_not_fit_or_is_missing_is_refused_and_nothing_is_left(tmp_path, store):
    model_folder(tmp_path / "theirs", vocab_size=310)
    with pytest.raises(InputError, match="the tokenizer does not fit the model: its largest id is 319, the embedding"):
        import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store)
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer.json"):
        import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store)
    assert store.of_run("mine") == {} and list(store.manifests("pretrain")) == []


@pytest.mark.slow
def test_a_model_is_found_by_folder_run_manifest_and_registry_name(tmp_path, store, mlflow_uri):
    model_folder(tmp_path / "theirs")
    manifest = import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store, mlflow_uri)["pretrain"]
    for named in ("mine", manifest.uri):
        found = find_model(named, store)
        assert found.folder == manifest.path("model") and found.hashes() == {"init_from": manifest.fingerprint}
    folder = find_model(str(tmp_path / "theirs"), store)
    assert folder.manifest is None and set(folder.hashes()) == {
        "init_from/config.json",
        "init_from/generation_config.json",
        "init_from/model.safetensors",
    }
    import mlflow

    mlflow.set_tracking_uri(mlflow_uri)
    place = (tmp_path / "artifacts").as_uri()
    with mlflow.start_run(experiment_id=mlflow.create_experiment("theirs", artifact_location=place)) as run:
        mlflow.log_artifacts(str(tmp_path / "theirs"), "model")
    uri = f"{run.info.artifact_uri}/model"
    client = mlflow.MlflowClient()
    client.create_registered_model("theirs")
    client.create_model_version("theirs", uri, run.info.run_id)
    client.set_registered_model_alias("theirs", "champion", "1")
    found = find_model("models:/theirs@champion", store, mlflow_uri)
    assert Path(found.folder, "config.json").read_text() == (tmp_path / "theirs" / "config.json").read_text()
    with pytest.raises(ArtifactError, match="models:/theirs@none cannot be brought from MLflow"):
        find_model("models:/theirs@none", store, mlflow_uri)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("nobody", "'nobody' is no model: neither a folder with a config.json, nor a pipeline run in"),
        ("some/where", "'some/where' is no model"),
        ("models:/x@champion", "no tracking URI is known"),
    ],
)
def test_what_is_no_model_is_told(store, named, words):
    with pytest.raises(ArtifactError, match=words):
        find_model(named, store)


def test_a_run_without_such_a_model_and_a_manifest_of_another_stage_are_told(tmp_path, store):
    model_folder(tmp_path / "theirs")
    made = import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store)
    with pytest.raises(ArtifactError, match=r"run 'mine' has no model of dpo yet, only tokenizer, pretrain. Run first"):
        find_model("mine", store, stages=("dpo",))
    with pytest.raises(ArtifactError, match="is a manifest of 'tokenizer', which makes no model"):
        find_model(made["tokenizer"].uri, store)


def test_the_fingerprint_of_continued_training_covers_the_weights(tmp_path, store):
    model_folder(tmp_path / "theirs")
    wanted = Recipe(pretrain={"init_from": str(tmp_path / "theirs")})
    before = origin_hashes("pretrain", wanted, store, None)
    model_folder(tmp_path / "theirs", initializer_range=0.5)
    assert origin_hashes("pretrain", wanted, store, None) != before
    assert origin_hashes("pretrain", Recipe(), store, None) == {} == origin_hashes("instruct", wanted, store, None)


@pytest.mark.parametrize(("dtype", "limit"), [(None, "5GB"), ("bf16", "20KB"), ("fp32", "1MiB")])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_transformers_opens_an_export_and_generates(tmp_path, store, dtype, limit, family):
    sparse = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    figures = {"model_type": family, "tie_word_embeddings": family == "qwen3"} | (sparse if "moe" in family else {})
    model = model_folder(tmp_path / "theirs", **figures)
    import_model(str(tmp_path / "theirs"), recipe(tmp_path), "mine", store)
    found = find_model("mine", store)
    files = {path.name for path in export_model(found, str(tmp_path / "out"), dtype, limit)}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= files
    assert ("model.safetensors.index.json" in files) == (limit == "20KB")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    chat = [{"role": "user", "content": "河水流向哪里？"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    expected = model(ids["input_ids"])
    assert torch.allclose(theirs(**ids).logits, expected, atol=0.05 if dtype == "bf16" else 1e-5)
    reply = theirs.generate(**ids, max_new_tokens=4, do_sample=False)
    assert reply.shape[1] > ids["input_ids"].shape[1]
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["dtype"] == {"bf16": "bfloat16"}.get(dtype, "float32")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pretrain of run 'mine'" in card and family in card and "apply_chat_template" in card
    with pytest.raises(InputError, match="is not empty: an export never mixes with other files"):
        export_model(found, str(tmp_path / "out"))


def test_sizes_are_read_in_both_kinds_of_units():
    assert [parse_size(text) for text in ("5GB", "1.5 MiB", "1000")] == [5 * 10**9, 3 * 2**19, 1000]
    for text in ("", "GB", "5 XB", "0"):
        with pytest.raises(InputError, match=r"is no size: give a number and B, KB"):
            parse_size(text)


@pytest.mark.slow
def test_commands_import_and_export(tmp_path):
    model_folder(tmp_path / "theirs", tokenizer_of())
    home = ["--home", str(tmp_path / "home")]
    done = CliRunner().invoke(import_, [str(tmp_path / "theirs"), "--run-key", "mine", *home], catch_exceptions=False)
    assert done.exit_code == 0 and "run key: mine" in done.output and "qwen-core stage instruct sft" in done.output
    out = tmp_path / "out"
    done = CliRunner().invoke(export, ["mine", "-o", str(out), "--dtype", "bf16", *home], catch_exceptions=False)
    assert done.exit_code == 0 and "model.safetensors" in done.output
    assert "pretrain of run 'mine': 7 files" in done.output
