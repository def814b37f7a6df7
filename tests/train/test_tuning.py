"""Fine-tuning on two processes under ZeRO-3: adapters alone learn, a killed run goes on, packing changes no loss."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from qwen_core.config.align import Lora, Sft
from qwen_core.config.parallel import Parallel
from qwen_core.model import load_pretrained
from tests.jobs.models import model_folder
from tests.parallel.spread import spread
from tests.train.tables import write
from tests.train.test_conversation_rows import conversations
from tests.train.tuning_runs import ADAPTERS, run

pytestmark = pytest.mark.slow

SETTINGS = Sft(
    max_steps=5,
    warmup_steps=0,
    micro_batch_size=1,
    global_batch_size=4,
    log_every_steps=1,
    min_validation_points=2,
    checkpoint_every_steps=2,
    learning_rate=0.02,
    weight_decay=0.0,
    precision="fp32",
    lora=Lora(enabled=True),
)
FULL = SETTINGS.model_copy(update={"lora": Lora(), "learning_rate": 0.001, "max_steps": 2})
ZERO = Parallel(num_workers=2, zero_stage=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """All runs, in one start of the processes."""
    home = tmp_path_factory.mktemp("tuning")
    model_folder(home / "base", initializer_range=0.1)
    write(home / "data.arrow", conversations(24))
    runs = [
        ("straight", SETTINGS, ZERO, 64, -1),
        ("resumed", SETTINGS, ZERO, 64, 3),
        ("resumed", SETTINGS, ZERO, 64, -1),
        ("packed", FULL, ZERO, 512, -1),
    ]
    (home / "told.json").write_text(json.dumps(spread(run, 2, str(home), runs)))
    return home


def _history(home, name):
    return [json.loads(line) for line in (home / name / "out" / "history.jsonl").read_text().splitlines()]


def _losses(home, name):
    return [(event["step"], event[key]) for event in _history(home, name) for key in event if key.endswith("/loss")]


def test_only_adapters_are_in_the_optimiser(home):
    told = json.loads((home / "told.json").read_text())
    first = told[0][0] if isinstance(told[0], list) else told[0]
    assert len(first["learning"]) == 2 * 3 * 2 and all("lora_" in name for name in first["learning"])
    base, model = (
        load_file(home / "base" / "model.safetensors"),
        load_file(home / "straight/out/model/model.safetensors"),
    )
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], model[name])}
    assert set(base) == set(model) and changed == set(ADAPTERS.target_modules)


def test_a_killed_run_with_dropout_goes_on_bit_for_bit(home):
    assert _losses(home, "resumed") == _losses(home, "straight")
    one, other = (load_file(home / name / "out/adapter/adapter_model.safetensors") for name in ("straight", "resumed"))
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_peft_reads_the_adapter_and_gives_the_logits_of_the_merged_model(home):
    ids = torch.tensor([[5, 9, 2, 33, 60]])
    merged = load_pretrained(home / "straight/out/model")(ids)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(home / "base"), str(home / "straight/out/adapter")
    ).eval()
    assert torch.allclose(theirs(ids).logits, merged, atol=1e-5)
    assert not torch.allclose(load_pretrained(home / "base")(ids), merged, atol=0.01)


def test_the_answers_losses_fall_and_are_told_by_language(home):
    events = [event for event in _history(home, "straight") if "validation/loss" in event]
    assert events[-1]["validation/loss"] < events[0]["validation/loss"]
    assert {"validation/loss/language/zh", "validation/loss/language/en"} <= set(events[0])
    assert not Path(home / "packed/out/adapter").exists()
