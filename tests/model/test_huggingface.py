"""Model folders: sharded, streamed, in any dtype; damaged and foreign ones are refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_core.errors import ArtifactError
from qwen_core.model import CausalLM, ModelConfig, initialise, load_pretrained, load_state, save_pretrained
from qwen_core.model.huggingface import read_special_ids


@pytest.fixture(scope="module")
def model():
    made = CausalLM(ModelConfig(50, 32, 48, 2, 4, 2, 16, 64))
    initialise(made, seed=1)
    return made


@pytest.fixture
def folder(tmp_path, model):
    save_pretrained(model.config, model.state_dict(), tmp_path, eos_token_id=2, pad_token_id=0)
    return tmp_path


@pytest.fixture
def sharded(tmp_path, model):
    save_pretrained(model.config, model.state_dict(), tmp_path, max_shard_bytes=20_000)
    return tmp_path


def _change(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_state_streams_into_shards_and_out_again(tmp_path, model):
    drawn = []

    def tensors():
        for name, tensor in model.named_parameters():
            drawn.append(name)
            yield name, tensor

    save_pretrained(model.config, tensors(), tmp_path, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert set(index["weight_map"].values()) == set(files) and files[0].endswith(f"-of-{len(files):05d}.safetensors")
    assert all(path.stat().st_size < 22_000 for path in tmp_path.glob("*.safetensors"))
    assert index["metadata"]["total_size"] == 4 * sum(parameter.numel() for parameter in model.parameters())
    read = dict(load_state(tmp_path))
    assert set(read) == set(drawn)
    assert all(torch.equal(read[name], tensor) for name, tensor in model.named_parameters())


def test_a_second_model_replaces_the_shards_of_the_first(sharded, model):
    save_pretrained(model.config, model.state_dict(), sharded)
    assert [path.name for path in sharded.glob("model*")] == ["model.safetensors"]
    mapped = load_pretrained(sharded, dtype=None)  # its weights lie in the file that is replaced now
    save_pretrained(model.config, mapped.state_dict(), sharded, dtype=torch.bfloat16)
    assert torch.equal(mapped.model.norm.weight, model.model.norm.weight)
    assert load_pretrained(sharded, dtype=None).model.norm.weight.dtype == torch.bfloat16


def test_dtype_is_kept_or_converted_and_told(tmp_path, model):
    save_pretrained(model.config, model.state_dict(), tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_pretrained(tmp_path).lm_head.weight.dtype == torch.float32
    kept = load_pretrained(tmp_path, dtype=None)
    assert kept.lm_head.weight.dtype == torch.bfloat16
    assert kept.lm_head.weight is kept.model.embed_tokens.weight


def test_special_tokens_are_written_and_read(folder, tmp_path, model):
    ids = read_special_ids(folder)
    assert (ids.eos, ids.pad, ids.bos) == ((2, 0), 0, 0)
    save_pretrained(model.config, model.state_dict(), folder, [7, 8], 0, bos_token_id=5)
    ids = read_special_ids(folder)
    assert (ids.eos, ids.pad, ids.bos) == ((7, 8, 0), 0, 5)
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == [7, 8]


def test_weights_of_no_one_are_not_saved(tmp_path, model):
    with pytest.raises(ArtifactError, match="no weights were given"):
        save_pretrained(model.config, {}, tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 200, 0.5, 0.99])
def test_file_that_was_cut_off_is_refused(folder, kept):
    whole = (folder / "model.safetensors").read_bytes()
    size = kept if isinstance(kept, int) else int(len(whole) * kept)
    (folder / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(ArtifactError, match=rf"model\.safetensors \({size:,} bytes\) is cut off or damaged"):
        load_pretrained(folder)


def test_file_whose_head_is_damaged_is_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:20] + b"\xff" * 40 + whole[60:])
    with pytest.raises(ArtifactError, match="cut off or damaged"):
        load_pretrained(folder)


def test_missing_shard_and_missing_index_are_told(sharded):
    victim = next(iter(sharded.glob("model-00002-*")))
    victim.rename(sharded / "elsewhere")
    with pytest.raises(ArtifactError, match=victim.name):
        load_pretrained(sharded)
    (sharded / "model.safetensors.index.json").write_text('{"weight_map"')
    with pytest.raises(ArtifactError, match=r"index\.json is damaged"):
        load_pretrained(sharded)
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(ArtifactError, match=r"shards but no model\.safetensors\.index\.json"):
        load_pretrained(sharded)


def test_index_that_promises_more_than_its_files_is_refused(sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=r"names tensors that its files lack: model\.layers\.9"):
        load_pretrained(sharded)


def test_missing_unknown_and_misshapen_tensors_are_named(folder):
    def change(weights):
        weights["model.layers.0.mlp.up_proj.bias"] = torch.zeros(48)
        weights["model.norm.weight"] = torch.ones(16)
        del weights["model.layers.1.mlp.up_proj.weight"]

    _change(folder, change)
    with pytest.raises(ArtifactError) as caught:
        load_pretrained(folder)
    told = str(caught.value)
    assert "missing: model.layers.1.mlp.up_proj.weight" in told
    assert "unknown: model.layers.0.mlp.up_proj.bias" in told
    assert "model.norm.weight is [16], not [32]" in told


def test_weights_of_another_architecture_are_refused(folder):
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(tree | {"model_type": "qwen2"}))
    with pytest.raises(ArtifactError, match=r"\(qwen2\): missing: .*q_proj\.bias.*unknown: .*q_norm"):
        load_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(tree | {"tie_word_embeddings": False}))
    with pytest.raises(ArtifactError, match=r"missing: lm_head\.weight"):
        load_pretrained(folder)


def test_buffers_of_early_checkpoints_are_passed_over(folder):
    _change(folder, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    load_pretrained(folder)
