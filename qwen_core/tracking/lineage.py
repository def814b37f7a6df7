"""Lineage: from a model back to each source file, and from a file or a corpus forwards to the models that hold it.

    back     model ─▶ inputs of its manifest ─▶ ... ─▶ ingest ─▶ files of its parts; an earlier corpus or model that it
             goes on from counts as an input
    forward  file, artifact ─▶ artifacts that read it ─▶ ... ─▶ models ─▶ versions of the registry

Manifests alone tell it; MLflow is not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import InputError
from qwen_core.stages import STAGES
from qwen_core.tracking.compare import TRAINING_STAGES, source_files

GONE = "gone.json"
"""In the folder of an artifact that was cleared away, from which a model descends: the text of its manifest."""
ORIGINS = {
    "base": ("ingest",),
    "init_from": TRAINING_STAGES,
    "keep_from": ("tokenizer",),
    "heldout_from": ("pack",),
    "new_from": ("ingest",),
}
"""Earlier artifacts that a stage goes on from, by the name that it has for them, with the stages that make such."""
_READERS = 16


@dataclass(frozen=True)
class Artifact:
    """An artifact on the way.

    Attributes:
        uri: Of its manifest.
        manifest: What it tells; `None` where nothing is known of it any more.
        inputs: Manifest URIs of what it was made from, by what they are to it.
        files: Source files that it read itself: path by content hash.
        is_gone: Whether it was deleted.
    """

    uri: str
    manifest: Manifest | None
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    is_gone: bool = False

    @property
    def title(self) -> str:
        """Stage and fingerprint."""
        stage, fingerprint = self.uri.split("/")[-3:-1]
        return f"{stage} {fingerprint}"

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        told: dict[str, Any] = {"uri": self.uri, "is_gone": self.is_gone, "inputs": dict(self.inputs)}
        if self.manifest is not None:
            names = ("stage", "fingerprint", "run_key", "mlflow_run_id", "created_at", "rows", "tokens", "bytes")
            told |= {name: getattr(self.manifest, name) for name in names}
        return told | {"files": [{"path": path, "hash": digest} for digest, path in self.files.items()]}


def inputs_of(manifest: Manifest, store: Store) -> dict[str, str]:
    """Name all artifacts that one was made from.

    Args:
        manifest: Of the artifact.
        store: Where it lies.

    Returns:
        Manifest URIs: its stage's inputs by stage word, and what it went on from by the names of `ORIGINS`.
    """
    found = dict(manifest.inputs)
    for name, stages in ORIGINS.items():
        told = manifest.details.get(name)
        if isinstance(told, str) and told.endswith("manifest.json"):
            found[name] = told
        elif name in manifest.sources:
            places = [f"{store.root}/{stage}/{manifest.sources[name]}/manifest.json" for stage in stages]
            there = [uri for uri, size in zip(places, store.sizes(places), strict=True) if size is not None]
            found[name] = (there or places)[0]
    return found


def back(uris: Iterable[str], store: Store) -> dict[str, Artifact]:
    """Walk back from artifacts to all that they were made from.

    Args:
        uris: Of their manifests.
        store: Where they lie.

    Returns:
        Artifacts by URI, the nearest first; those that were deleted are among them.
    """
    found: dict[str, Artifact] = {}
    waiting = list(uris)
    while waiting:
        uri = waiting.pop(0)
        if uri in found:
            continue
        found[uri] = _artifact(uri, store)
        waiting += found[uri].inputs.values()
    return found


def _artifact(uri: str, store: Store) -> Artifact:
    if not uri.startswith(f"{store.root}/"):
        return Artifact(uri, None, is_gone=True)
    text = store.read(uri)
    is_gone = text is None
    text = text if text is not None else store.read(f"{uri.rpartition('/')[0]}/{GONE}")
    if text is None:
        return Artifact(uri, None, is_gone=True)
    manifest = Manifest.model_validate_json(text)
    return Artifact(uri, manifest, inputs_of(manifest, store), files_of(manifest, store), is_gone)


def files_of(manifest: Manifest, store: Store) -> dict[str, str]:
    """List what an artifact read from outside of the store.

    Args:
        manifest: Of the artifact.
        store: Where it lies.

    Returns:
        Path, or name, by content hash.
    """
    if manifest.stage == "ingest":
        return source_files(manifest, store)
    return {digest: name for name, digest in manifest.sources.items() if name not in ORIGINS}


class Index:
    """All artifacts of a store, and what was made from each."""

    def __init__(self, store: Store) -> None:
        """Read every manifest.

        Args:
            store: The store.
        """
        self._store = store
        with ThreadPoolExecutor(_READERS) as pool:
            read = pool.map(lambda stage: list(store.manifests(stage)), STAGES)
            self.manifests = {manifest.uri: manifest for manifests in read for manifest in manifests}
            inputs = pool.map(lambda manifest: inputs_of(manifest, store), self.manifests.values())
            self._made_from: dict[str, list[str]] = defaultdict(list)
            for uri, found in zip(self.manifests, inputs, strict=True):
                for source in found.values():
                    self._made_from[source].append(uri)

    def readers_of(self, path: str) -> list[str]:
        """Find the artifacts that read a source file.

        Args:
            path: Its path as it was read, the end of it from a slash on, or its content hash.

        Returns:
            Manifest URIs.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            read = pool.map(lambda manifest: files_of(manifest, self._store), self.manifests.values())
            return [uri for uri, files in zip(self.manifests, read, strict=True) if _has(files, path)]

    def forward(self, uris: Sequence[str]) -> dict[str, Artifact]:
        """Walk forward from artifacts to all that was made from them.

        Args:
            uris: Of their manifests.

        Returns:
            Artifacts by URI; `inputs` are those on the way alone.
        """
        found = dict.fromkeys(uris)
        waiting = list(found)
        while waiting:
            new = [made for made in self._made_from[waiting.pop(0)] if made not in found]
            found |= dict.fromkeys(new)
            waiting += new
        told = {}
        for uri in found:
            manifest = self.manifests.get(uri)
            all_inputs = inputs_of(manifest, self._store) if manifest else {}
            inputs = {name: source for name, source in all_inputs.items() if source in found}
            told[uri] = Artifact(uri, manifest, inputs)
        return told


def _has(files: Mapping[str, str], path: str) -> bool:
    return path in files or any(one == path or one.endswith(f"/{path.lstrip('/')}") for one in files.values())


def versions_of(artifacts: Iterable[Artifact]) -> Iterator[str]:
    """Name the registered versions among artifacts.

    Args:
        artifacts: Some of them of `release`.

    Yields:
        Such as `demo/3`.
    """
    for artifact in artifacts:
        told = artifact.manifest.details if artifact.manifest and artifact.manifest.stage == "release" else {}
        if told.get("version"):
            yield f"{told['name']}/{told['version']}"


def starts_of(named: str, index: Index, store: Store) -> list[str]:
    """Find where a walk forward begins.

    Args:
        named: A source file, a manifest's URI, a fingerprint, or a run key, whose corpus is meant.
        index: Of the store.
        store: The store.

    Returns:
        Manifest URIs.

    Raises:
        InputError: Nothing in the store has this name, and no artifact read such a file.
    """
    if named in index.manifests:
        return [named]
    found = [uri for uri, manifest in index.manifests.items() if manifest.fingerprint == named]
    if not found and "/" not in named:
        have = store.of_run(named)
        found = [have[stage].uri for stage in ("ingest",) if stage in have]
    found = found or index.readers_of(named)
    if not found:
        raise InputError(
            f"nothing in {store.root} was made from '{named}': give a source file as 'qwen-core lineage MODEL --files' "
            f"lists it, the URI of a manifest, a fingerprint, or a run key"
        )
    return found
