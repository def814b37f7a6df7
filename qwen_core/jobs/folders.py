"""Model folders in Hugging Face's form, looked at without loading a weight: what is in them, and whether it fits.

config.json ─▶ architecture ─▶ names and shapes that there must be ─┐
*.safetensors ─▶ headers ─▶ names and shapes that there are ────────┴─▶ whole? of this architecture?
tokenizer.json ─▶ ids ─▶ rows of the embedding?
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from qwen_core.errors import ArtifactError, InputError
from qwen_core.jobs.sources import hash_file
from qwen_core.model import CausalLM, ModelConfig
from qwen_core.model.experts import split_experts
from qwen_core.model.shards import INDEX, WEIGHTS, named
from qwen_core.tokenizer import ChatTokenizer

_LENGTH_BYTES = 8  # of a safetensors file's header, which tells the header's own length
_MAX_HEADER_BYTES = 100_000_000  # as the format's own readers have it
_IGNORED = "rotary_emb.inv_freq"  # old files hold it; it follows from config.json
_THREADS = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        shape: Its sizes.
        dtype: In safetensors' words, such as `BF16`.
        file: Where it lies.
    """

    shape: tuple[int, ...]
    dtype: str
    file: Path


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was found to be whole.

    Attributes:
        place: The folder.
        config: The architecture.
        tensors: By name, as published.
    """

    place: Path
    config: ModelConfig
    tensors: Mapping[str, Tensor]

    @property
    def files(self) -> list[Path]:
        """Files that make up the model: weights, their index, and both configs."""
        weights = {tensor.file for tensor in self.tensors.values()}
        told = [self.place / name for name in ("config.json", "generation_config.json", INDEX)]
        return [path for path in told if path.is_file()] + sorted(weights)

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def open_folder(folder: str | Path) -> ModelFolder:
    """Look at a model folder.

    Args:
        folder: With `config.json` and safetensors, one file or several with an index.

    Returns:
        What it holds.

    Raises:
        ArtifactError: It is no model folder, a file is missing or cut off, or the weights are not those of config.json.
    """
    place = Path(folder)
    if not (place / "config.json").is_file():
        raise ArtifactError(f"{place} holds no config.json: name the folder of a model in Hugging Face's form")
    config = ModelConfig.from_json(place / "config.json")
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(place):
        tensors |= {name: tensor for name, tensor in _header(file).items() if not name.endswith(_IGNORED)}
    _check_architecture(place, config, tensors)
    return ModelFolder(place, config, tensors)


def check_tokenizer(tokenizer: ChatTokenizer, config: ModelConfig, model: str) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Args:
        tokenizer: The tokenizer.
        config: The model's architecture.
        model: Named in the error.

    Raises:
        InputError: It has.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the tokenizer does not fit the model: its largest id is {tokenizer.vocab_size - 1}, the embedding of "
            f"{model} has {config.vocab_size} rows. Use the tokenizer that the model was trained with "
            f"(tokenizer.import_path), or a model with at least {tokenizer.vocab_size} rows"
        )


def check_same_tokenizer(ours: ChatTokenizer, theirs: ChatTokenizer, data: str, model: str, remedy: str) -> None:
    """Refuse data whose ids mean other tokens than the model learnt.

    Args:
        ours: The data's tokenizer.
        theirs: The model's.
        data: Named in the error.
        model: Named in the error.
        remedy: What to do.

    Raises:
        InputError: A token has another id.
    """
    first, second = ours.tokens(), theirs.tokens()
    if first == second:
        return
    differing = sorted((number, token) for token, number in first.items() if second.get(token) != number)
    if not differing:  # the model's knows more tokens, and all of ours alike
        return
    number, token = differing[0]
    raise InputError(
        f"{data} was made with another tokenizer than {model}: {len(differing)} of {len(first)} tokens differ, the "
        f"first being {token!r}, {number} in the data and {second.get(token, 'unknown')} to the model. {remedy}"
    )


def check_positions(config: ModelConfig, longest: int, data: str, remedy: str) -> None:
    """Refuse sequences that are longer than the model's rotary embeddings reach.

    Args:
        config: The model's architecture.
        longest: Tokens of the longest sequence.
        data: Named in the error.
        remedy: What to do.

    Raises:
        InputError: They are.
    """
    reach = config.max_position_embeddings
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        reach = max(reach, int(scaling.factor * scaling.original_max_position_embeddings))
    if longest > reach:
        raise InputError(
            f"{data} holds a sequence of {longest} tokens, the model's rotary embeddings reach {reach} "
            f"(max_position_embeddings). {remedy}, or stretch the model by YaRN (rope_scaling in its config.json)"
        )


def check_ids(largest: int, vocab_size: int, data: str) -> None:
    """Refuse data with an id that the model has no embedding for.

    Args:
        largest: Largest id in the data.
        vocab_size: Rows of the model's embedding.
        data: Named in the error.

    Raises:
        InputError: It has.
    """
    if largest >= vocab_size:
        raise InputError(
            f"{data} holds the token id {largest}, the model's vocabulary has {vocab_size} entries (0 to "
            f"{vocab_size - 1}): make the data again with the model's own tokenizer, or raise model.vocab_size"
        )


def file_hashes(folder: ModelFolder) -> dict[str, str]:
    """Hash a model's files; one that has not changed since is not read again in this process.

    Args:
        folder: The model.

    Returns:
        Hashes by file name.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip([path.name for path in folder.files], pool.map(_hash, folder.files), strict=True))


def _hash(path: Path) -> str:
    status = path.stat()
    return _hash_as_it_is(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _hash_as_it_is(path: Path, size: int, changed: int) -> str:
    return hash_file(path)


def _weight_files(place: Path) -> list[Path]:
    """List the files of weights, those that loading takes too: what the index names, or the only one."""
    index = place / INDEX
    if index.is_file():
        names = sorted(set(_json(index)["weight_map"].values()))
        missing = [name for name in names if not (place / name).is_file()]
        if missing:
            raise ArtifactError(
                f"{place} lacks {len(missing)} of the {len(names)} files that its {INDEX} names: "
                f"{named(missing)}. Copy them too"
            )
        return [place / name for name in names]
    if (place / WEIGHTS).is_file():
        return [place / WEIGHTS]
    strays = sorted(path.name for path in place.glob("*.safetensors"))
    if not strays:
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in place.glob(pattern))
        found = f" ({named(others)} is of a form that is never loaded: convert it)" if others else ""
        raise ArtifactError(f"{place} holds no .safetensors file{found}")
    raise ArtifactError(
        f"{place} holds {named(strays)}, but neither {WEIGHTS} nor {INDEX}, which tells what belongs together. "
        f"Copy it too"
    )


def _header(file: Path) -> dict[str, Tensor]:
    """Read the header of a safetensors file, and see that the file is as long as it says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(_LENGTH_BYTES)
        length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else size + 1
        if length > min(size, _MAX_HEADER_BYTES):
            raise ArtifactError(f"{file} is no safetensors file, or cut off: it has {size} bytes. Copy it again")
        text = opened.read(length)
    try:
        tree: dict[str, Any] = json.loads(text)
        tree.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in tree.values()), default=0)
        tensors = {name: Tensor(tuple(entry["shape"]), entry["dtype"], file) for name, entry in tree.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is no safetensors file: its header cannot be read ({error})") from error
    expected = _LENGTH_BYTES + length + end
    if size != expected:
        raise ArtifactError(f"{file} is cut off: it has {size} bytes, its header tells of {expected}. Copy it again")
    return tensors


def _check_architecture(place: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the architecture; transformers would fill what is missing with noise."""
    expected = dict(_expected(config))
    optional = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(set(expected) - set(tensors) - optional)
    strange = sorted(set(tensors) - set(expected))
    other = [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in tensors and tensors[name].shape != shape
    ]
    faults = [
        f"{len(found)} {word} ({named(found)})"
        for word, found in (("are missing", missing), ("are of another model", strange), ("have another shape", other))
        if found
    ]
    if faults:
        raise ArtifactError(
            f"the weights in {place} are not those of its config.json ({config.model_type}, {len(expected)} tensors): "
            f"{'; '.join(faults)}. The folder mixes two models, or config.json was changed: copy it again"
        )


def _expected(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List the tensors of an architecture as they are published: an expert's matrices each by itself."""
    with torch.device("meta"):
        model = CausalLM(config)
    for name, parameter in split_experts(model.named_parameters(remove_duplicate=False)):
        yield name, tuple(parameter.shape)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is no JSON ({error}): copy it again") from error
