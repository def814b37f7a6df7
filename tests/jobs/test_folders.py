"""Model folders: whole ones are taken, broken, mixed and foreign ones refused with what is wrong and what to do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3MoeConfig

from qwen_core.errors import ArtifactError, InputError
from qwen_core.jobs.folders import (
    check_ids,
    check_positions,
    check_same_tokenizer,
    check_tokenizer,
    file_hashes,
    open_folder,
)
from qwen_core.model import ModelConfig, save_pretrained
from qwen_core.tokenizer import load_tokenizer, save_tokenizer
from tests.jobs.models import config, model_folder, tokenizer_of

FIGURES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    "theirs",
    [
        Qwen2Config(**FIGURES, tie_word_embeddings=True),
        Qwen3MoeConfig(**FIGURES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    ],
)
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_a_folder_that_transformers_wrote_is_whole(tmp_path, theirs, max_shard_size):
    model = AutoModelForCausalLM.from_config(theirs)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    found = open_folder(tmp_path)
    assert found.config.model_type == theirs.model_type
    assert found.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert len(file_hashes(found)) == len(found.files) >= 3


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:60])


def empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def without(folder):
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.self_attn.q_norm.weight"]
    save_file(state, folder / "model.safetensors")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lacks_a_shard(folder):
    save_pretrained(config(), load_file(folder / "model.safetensors"), folder, 1, 1, max_shard_bytes=50_000)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json: name the folder of a model"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda folder: change(folder, model_type="llama"), "model_type is 'llama', only qwen2, qwen3"),
        (cut, r"model.safetensors is cut off: it has \d+ bytes, its header tells of \d+. Copy it again"),
        (cut_in_header, "is no safetensors file, or cut off: it has 60 bytes"),
        (empty, "is no safetensors file"),
        (without, r"1 are missing \(model.layers.1.self_attn.q_norm.weight\)\. The folder mixes two models"),
        (pickled, r"holds no .safetensors file \(pytorch_model.bin is of a form that is never loaded"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"),
            "holds weights.safetensors, but neither model.safetensors nor",
        ),
        (lacks_a_shard, r"lacks 1 of the \d files that its model.safetensors.index.json names: model-00002-of"),
        (lambda folder: change(folder, model_type="qwen2"), r"6 are missing .*q_proj.bias.*; 4 are of another model"),
        (
            lambda folder: change(folder, hidden_size=64),
            r"have another shape \(.*embed_tokens.weight is \[352, 32\] instead of \[352, 64\]",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, harm, words):
    model_folder(tmp_path)
    harm(tmp_path)
    with pytest.raises(ArtifactError, match=words):
        open_folder(tmp_path)


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path):
    model_folder(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    check_tokenizer(tokenizer, config(vocab_size=320), "the model")
    with pytest.raises(InputError, match=r"its largest id is 319, the embedding of my model has 319 rows. Use the tok"):
        check_tokenizer(tokenizer, config(vocab_size=319), "my model")


def test_data_of_another_tokenizer_is_refused_and_of_a_part_of_it_taken(tmp_path):
    save_tokenizer(tokenizer_of(), tmp_path / "one")
    more = tokenizer_of()
    more.add_tokens(["<more>"])
    save_tokenizer(more, tmp_path / "more")
    save_tokenizer(tokenizer_of(310), tmp_path / "other")
    one, more, other = (load_tokenizer(tmp_path / name) for name in ("one", "more", "other"))
    check_same_tokenizer(one, more, "the data", "the model", "Do this.")
    with pytest.raises(InputError, match=r"another tokenizer .*: 3 of 310 .*, 307 in the data and 317 to .* Do this"):
        check_same_tokenizer(other, one, "the data", "the model", "Do this.")


def test_sequences_that_rotary_embeddings_do_not_reach_are_refused():
    check_positions(config(max_position_embeddings=256), 256, "the data", "Lower x")
    with pytest.raises(InputError, match=r"a sequence of 257 tokens, .* reach 256 .*Lower x, or stretch .* YaRN"):
        check_positions(config(max_position_embeddings=256), 257, "the data", "Lower x")
    stretched = config(
        max_position_embeddings=256, rope_scaling={"factor": 4.0, "original_max_position_embeddings": 256}
    )
    assert isinstance(stretched, ModelConfig)
    check_positions(stretched, 1024, "the data", "Lower x")
    with pytest.raises(InputError, match="reach 1024"):
        check_positions(stretched, 1025, "the data", "Lower x")


def test_an_id_beyond_the_vocabulary_is_refused():
    check_ids(63, 64, "the data")
    with pytest.raises(InputError, match=r"holds the token id 64, the model's vocabulary has 64 entries \(0 to"):
        check_ids(64, 64, "the data")


def test_hashes_follow_the_content(tmp_path):
    model = model_folder(tmp_path)
    before = file_hashes(open_folder(tmp_path))
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    save_pretrained(model.config, model.state_dict(), tmp_path, 319, 317)
    after = file_hashes(open_folder(tmp_path))
    assert before["model.safetensors"] != after["model.safetensors"]
    assert before["config.json"] == after["config.json"]
