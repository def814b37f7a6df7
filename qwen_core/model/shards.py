"""Files of weights: safetensors, one or sharded with an index, written and read one tensor at a time.

tensors ─▶ model.safetensors
        └▶ model-00001-of-00003.safetensors, ..., model.safetensors.index.json   where they are too large for one
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qwen_core.errors import ArtifactError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Named = tuple[str, Tensor]


def write_shards(tensors: Iterable[Named], folder: Path, max_shard_bytes: int) -> None:
    """Write tensors; no more than one shard of them is held at a time.

    A shard gets its name when the count of shards is known. Files of an earlier model in the folder are replaced, and
    only after all new ones are whole, so that a model may be saved over the folder that it was mapped from.

    Args:
        tensors: In any order; each is consumed as it is drawn.
        folder: Exists.
        max_shard_bytes: A shard is closed before it grows beyond this; one tensor may be larger.
    """
    written: list[tuple[Path, dict[str, int]]] = []
    held: dict[str, Tensor] = {}
    size = 0

    def close() -> None:
        place = folder / f".unnamed-{len(written):05d}.safetensors"
        save_file(held, place, metadata={"format": "pt"})
        written.append((place, {name: tensor.nbytes for name, tensor in held.items()}))
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > max_shard_bytes:
            close()
            size = 0
        held[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    close()
    _name_shards(folder, written)


def read_shards(folder: Path) -> Iterator[Named]:
    """Read tensors, each mapped from its file and read when it is used.

    Args:
        folder: With `model.safetensors`, or an index and its shards.

    Yields:
        Names and tensors as they stand in the files.

    Raises:
        ArtifactError: A file is missing, cut off or damaged, or the index names a tensor that is not in its file.
    """
    files, index = _shard_files(folder)
    seen: set[str] = set()
    for file in files:
        try:
            with safe_open(file, "pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - no mapping
                    if index is None or index.get(name) == file.name:
                        seen.add(name)
                        yield name, shard.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(
                f"{file} ({file.stat().st_size:,} bytes) is cut off or damaged ({error}); copy it again"
            ) from error
    lacks = sorted(set(index or ()) - seen)
    if lacks:
        raise ArtifactError(
            f"{folder / INDEX} names tensors that its files lack: {named(lacks)}; copy the folder again"
        )


def named(names: Iterable[str], limit: int = 5) -> str:
    """Write some names into a message: the first few, and how many more there are."""
    ordered = list(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


def _shard_files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Find the files, and which of them holds what, where there is an index."""
    if (folder / INDEX).is_file():
        try:
            index: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{folder / INDEX} is damaged ({error!r}); copy it again") from error
        files = [folder / name for name in sorted(set(index.values()))]
        lacks = [file.name for file in files if not file.is_file()]
        if lacks:
            raise ArtifactError(f"{folder} lacks shards that {INDEX} names: {named(lacks)}; copy them too")
        return files, index
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS], None
    strays = sorted(folder.glob("model-*.safetensors"))
    if strays:
        raise ArtifactError(f"{folder} holds {len(strays)} shards but no {INDEX}, which tells their order; copy it too")
    raise ArtifactError(
        f"{folder} holds neither {WEIGHTS} nor {INDEX}; weights in pickle form are never loaded: convert them first"
    )


def _name_shards(folder: Path, written: list[tuple[Path, dict[str, int]]]) -> None:
    """Give all shards their names, and write the index where there are several."""
    for stale in (folder / INDEX, folder / WEIGHTS, *folder.glob("model-*-of-*.safetensors")):
        stale.unlink(missing_ok=True)
    if len(written) == 1:
        written[0][0].rename(folder / WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, (place, sizes) in enumerate(written, start=1):
        name = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        place.rename(folder / name)
        weight_map |= dict.fromkeys(sizes, name)
    total = sum(size for _, sizes in written for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
