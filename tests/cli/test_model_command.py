"""`qwen-core model`: a page for people, JSON for programs, recipes and folders."""

import json

import pytest
from click.testing import CliRunner

from qwen_core.cli.model import model
from qwen_core.errors import RecipeError


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(model, arguments, env={"COLUMNS": "140"}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_page_shows_counts_memory_plans_and_time():
    page = invoke("qwen2.5-72b", "--tokens", "1e12", "--gpus", "512", "--mfu", "0.4")
    assert "72,706,203,648" in page
    assert "ZeRO 1, tensor 8, pipeline 8, expert 1, data 8" in page
    assert "ZeRO-3 DP512" in page and "fits" in page
    assert "444.86 GFLOPs a token" in page and "(460.96 with all of it)" in page
    # 512 x 989e12 x 0.4 / 444.86e9 tokens a second
    assert "455,309 tokens/s on 512 GPUs" in page
    assert "25.4 days for 1,000.0 billion tokens" in page


def test_sparse_model_shows_experts_and_active_parameters():
    page = invoke("qwen1.5-moe-a2.7b")
    assert "60 experts of width 1,408, 4 for each token, and a shared one of width 5,632" in page
    assert "14,315,784,192" in page and "2,689,173,504" in page
    assert "EP4" in page


def test_json_adds_up_and_follows_overrides():
    tree = json.loads(invoke("qwen3-0.6b", "--json", "--set", "parallel.zero_stage=3", "--gpus", "16"))
    assert tree["parameters"]["total"] == sum(tree["parameters"]["by_part"].values()) == 596_049_920
    told = tree["memory_per_gpu"]
    assert (told["plan"]["gpus"], told["plan"]["zero_stage"]) == (16, 3)
    assert told["bytes"]["total"] == pytest.approx(sum(v for k, v in told["bytes"].items() if k != "total"))
    assert told["bytes"]["optimizer"] == pytest.approx(12 * 596_049_920 / 16)


def test_folder_with_config_json_is_measured_too(tmp_path):
    figures = {
        "model_type": "qwen2", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(figures))
    # a layer: q, o 8 x 8; k, v 8 x 4; biases 8 + 4 + 4; MLP 3 x 8 x 16; norms 2 x 8
    layer = 2 * 64 + 2 * 32 + 16 + 384 + 16
    tree = json.loads(invoke(str(tmp_path), "--json"))
    assert tree["parameters"]["total"] == 800 + 2 * layer + 8
    assert tree["memory_per_gpu"]["plan"]["gpus"] == 8


def test_impossible_questions_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="100 GPUs do not divide into groups"):
        invoke("qwen2.5-72b", "--gpus", "100")
    with pytest.raises(RecipeError, match=r"folder without config\.json"):
        invoke(str(tmp_path))
