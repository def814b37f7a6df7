"""The artifact store: what each stage made, committed by a manifest that is written last.

    <root>/<stage>/<fingerprint>/<attempt>/...      data files; invisible until a manifest names the attempt
    <root>/<stage>/<fingerprint>/state/...          checkpoints that a later attempt continues from
    <root>/<stage>/<fingerprint>/manifest.json      its presence is the commit
    <root>/runs/<run key>/<stage>.json              which manifest a pipeline run got for the stage

The fingerprint hashes the stage's name and version, its own sections of the recipe and the fingerprints of
its inputs: the same work is never done twice, and lineage is a walk from manifest to manifest. Each attempt
writes into a folder of its own, so two attempts cannot mix; no rename is relied upon, as object stores have none.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict

from qwen_core import __version__
from qwen_core.config import Recipe
from qwen_core.errors import ArtifactError
from qwen_core.filesystem import open_filesystem
from qwen_core.stages import STAGES, Stage

_MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What one finished stage made, from what, and at what cost.

    Attributes:
        inputs: Manifest URIs of the input stages, by stage word.
        sources: Content hashes of what was read from outside, by name (source files, labelled examples).
        data_uri: Folder of the data files.
        files: Size in bytes of each data file, by its path below `data_uri`.
        columns: Arrow types of the main table's columns, by name.
        rows: Documents, sequences or pairs kept.
        bytes: Sum of `files`, and of the parts that it shares with other artifacts (see `qwen_core.parts`).
        tokens: Tokens kept; 0 where the stage knows none.
        drops: Documents dropped, by reason.
        metrics: Figures of the result, such as a final loss.
        details: Anything else that a later stage or a reader needs, as plain JSON.
    """

    # A figure may be NaN, for which JSON has no number; as null it could not be read back.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    stage: str
    fingerprint: str
    uri: str
    data_uri: str
    inputs: dict[str, str]
    sources: dict[str, str]
    config: dict[str, Any]
    code_version: str
    stage_version: int
    columns: dict[str, str]
    rows: int
    bytes: int
    tokens: int
    drops: dict[str, int]
    metrics: dict[str, float]
    details: dict[str, Any]
    files: dict[str, int]
    seconds: float
    created_at: str
    run_key: str
    mlflow_run_id: str | None

    def path(self, name: str) -> str:
        """Join a data file's name to the data folder.

        Args:
            name: Path below the data folder, such as `model` or `documents/part-00000.parquet`.

        Returns:
            Its URI.
        """
        return f"{self.data_uri}/{name}"


@dataclass
class Outcome:
    """What a stage tells of its result; the store adds the rest of the manifest."""

    rows: int = 0
    tokens: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    shared_bytes: int = 0
    """Size of files that the artifact shares with others, outside its own folder."""


@dataclass(frozen=True)
class Attempt:
    """A place for one attempt at a stage: `data_uri` for its result, `state_uri` for what a rerun resumes."""

    stage: Stage
    fingerprint: str
    run_key: str
    uri: str
    data_uri: str
    state_uri: str
    inputs: dict[str, Manifest]
    sources: dict[str, str]
    config: dict[str, Any]


def fingerprint_of(
    stage: Stage, config: Mapping[str, Any], inputs: Mapping[str, str], sources: Mapping[str, str]
) -> str:
    """Hash all that decides a stage's result.

    Args:
        stage: The stage; its name and version count.
        config: Its own sections of the recipe, as plain JSON.
        inputs: Fingerprints of its input artifacts, by stage word.
        sources: Content hashes of outside data, by name.

    Returns:
        Sixteen hexadecimal digits.
    """
    told = {
        "stage": stage.name,
        "version": stage.version,
        "config": config,
        "inputs": dict(inputs),
        "sources": dict(sources),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def config_of(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Take the part of a recipe that shapes a stage's result.

    Args:
        stage: The stage.
        recipe: The whole recipe.

    Returns:
        Its sections and the seed, as plain JSON, without the keys that are `neutral` (see `config.base.Section`).
    """
    return {"seed": recipe.seed} | {name: getattr(recipe, name).shaping() for name in stage.sections}


def local_copy(uri: str) -> str:
    """Bring a file or folder of an object store to this machine; local paths are answered as they are.

    Args:
        uri: Local path or object store URI.

    Returns:
        A local path; a download lies in a temporary folder named after the URI, so a second call finds it.
    """
    if "://" not in uri:
        return uri
    target = Path(tempfile.gettempdir()) / f"qwen-core-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
    if not target.exists():
        source, path = open_filesystem(uri)
        with tempfile.TemporaryDirectory() as partial:
            data = Path(partial) / "data"
            if source.get_file_info(path).type == pafs.FileType.Directory:
                data.mkdir()  # pyarrow makes the folders below it, but not this one
            pafs.copy_files(path, str(data), source_filesystem=source, destination_filesystem=pafs.LocalFileSystem())
            with contextlib.suppress(OSError):  # another process was faster; its copy is as good
                data.rename(target)
    return str(target)


def split_files(manifest: Manifest, split: str) -> list[str]:
    """List the Arrow files of a split, on this machine.

    Args:
        manifest: Of a stage with splits.
        split: `train` or `validation`.

    Returns:
        Local paths, sorted.
    """
    names = sorted(name for name in manifest.files if name.startswith(f"{split}/") and name.endswith(".arrow"))
    return [local_copy(manifest.path(name)) for name in names]


def upload(folder: str, uri: str) -> None:
    """Copy a local folder's content to a place in a store.

    Args:
        folder: Local.
        uri: Local path or object store URI; made where it is missing.
    """
    target, path = open_filesystem(uri)
    target.create_dir(path, recursive=True)
    pafs.copy_files(folder, path, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=target)


class Store:
    """Artifacts below one root, a local path or an object store's URI (`s3://bucket/prefix`)."""

    def __init__(self, root: str) -> None:
        self.filesystem, path = open_filesystem(root)
        self._path = path.rstrip("/")
        self.root = root.rstrip("/")

    def find(self, stage: str, fingerprint: str) -> Manifest | None:
        """Look up a committed artifact.

        Args:
            stage: The stage's word.
            fingerprint: As `fingerprint_of` gives it.

        Returns:
            Its manifest, or `None` where there is none, also while an attempt is being made.
        """
        text = self._read(f"{stage}/{fingerprint}/{_MANIFEST}")
        return Manifest.model_validate_json(text) if text is not None else None

    def load(self, uri: str) -> Manifest:
        """Read the manifest at a URI.

        Args:
            uri: A manifest's URI below this root.

        Returns:
            The manifest.

        Raises:
            ArtifactError: There is none.
        """
        text = self._read(uri.removeprefix(self.root).lstrip("/"))
        if text is None:
            raise ArtifactError(f"no manifest at {uri}: the artifact was deleted, or belongs to another store")
        return Manifest.model_validate_json(text)

    def manifests(self, stage: str) -> Iterator[Manifest]:
        """Read all committed artifacts of a stage.

        Args:
            stage: The stage's word.

        Yields:
            Their manifests, sorted by fingerprint.
        """
        selector = pafs.FileSelector(f"{self._path}/{stage}", allow_not_found=True)
        for info in sorted(self.filesystem.get_file_info(selector), key=lambda info: info.path):
            found = self.find(stage, info.base_name)
            if found is not None:
                yield found

    def begin(
        self,
        stage: Stage,
        recipe: Recipe,
        run_key: str,
        inputs: Mapping[str, Manifest],
        sources: Mapping[str, str],
    ) -> Attempt:
        """Name the place for an attempt; nothing is written yet.

        Args:
            stage: The stage.
            recipe: The whole recipe.
            run_key: The pipeline run that the attempt belongs to.
            inputs: Manifests of the input stages, by word.
            sources: Content hashes of outside data, by name.

        Returns:
            The attempt, with its fingerprint.
        """
        config = config_of(stage, recipe)
        fingerprint = fingerprint_of(stage, config, {name: m.fingerprint for name, m in inputs.items()}, sources)
        home = f"{self.root}/{stage.name}/{fingerprint}"
        return Attempt(
            stage,
            fingerprint,
            run_key,
            uri=f"{home}/{_MANIFEST}",
            data_uri=f"{home}/attempt-{uuid.uuid4().hex[:8]}",
            state_uri=f"{home}/state",
            inputs=dict(inputs),
            sources=dict(sources),
            config=config,
        )

    def commit(self, attempt: Attempt, outcome: Outcome, seconds: float, mlflow_run_id: str | None) -> Manifest:
        """Write the manifest, and with it make the attempt's files the artifact; clear what earlier attempts left.

        Args:
            attempt: The attempt, all its data files written.
            outcome: What the stage tells of the result.
            seconds: Time that the stage took.
            mlflow_run_id: The stage's run, where there is one.

        Returns:
            The manifest as written; the first one, where another attempt was committed meanwhile.
        """
        done = self.find(attempt.stage.name, attempt.fingerprint)
        if done is not None:
            self.delete(attempt.data_uri)
            return done
        files = dict(self.files(attempt.data_uri))
        manifest = Manifest(
            stage=attempt.stage.name,
            fingerprint=attempt.fingerprint,
            uri=attempt.uri,
            data_uri=attempt.data_uri,
            inputs={name: source.uri for name, source in attempt.inputs.items()},
            sources=attempt.sources,
            config=attempt.config,
            code_version=__version__,
            stage_version=attempt.stage.version,
            columns=outcome.columns,
            rows=outcome.rows,
            bytes=sum(files.values()) + outcome.shared_bytes,
            tokens=outcome.tokens,
            drops=outcome.drops,
            metrics=outcome.metrics,
            details=outcome.details,
            files=files,
            seconds=round(seconds, 3),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            run_key=attempt.run_key,
            mlflow_run_id=mlflow_run_id,
        )
        self.write(attempt.uri, manifest.model_dump_json(indent=1))
        self._clear_losers(attempt)
        return manifest

    def point(self, run_key: str, manifest: Manifest) -> None:
        """Note which artifact a pipeline run got for a stage.

        Args:
            run_key: The pipeline run.
            manifest: What it got.
        """
        self.write(f"{self.root}/runs/{run_key}/{manifest.stage}.json", json.dumps({"manifest": manifest.uri}))

    def of_run(self, run_key: str) -> dict[str, Manifest]:
        """Collect what a pipeline run has so far.

        Args:
            run_key: The pipeline run.

        Returns:
            Manifests by stage word, in running order; empty for an unknown run. What was deleted to be made anew
            is left out.
        """
        found = {}
        for stage in STAGES:
            text = self._read(f"runs/{run_key}/{stage}.json")
            uri = json.loads(text)["manifest"] if text else None
            if uri and self._read(self._relative(uri)) is not None:
                found[stage] = self.load(uri)
        return found

    def files(self, uri: str) -> Iterator[tuple[str, int]]:
        """List the files below a folder.

        Args:
            uri: A folder below this root.

        Yields:
            Path below the folder and size in bytes, sorted by path.
        """
        base = f"{self._path}/{self._relative(uri)}"
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        infos = [info for info in self.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]
        for info in sorted(infos, key=lambda info: info.path):
            yield info.path[len(base) :].lstrip("/"), info.size

    def write(self, uri: str, text: str) -> None:
        """Write a small file so that a reader sees all of it or none: object stores do so by nature.

        Args:
            uri: A file below this root.
            text: Its content.
        """
        target = self.path_of(uri)
        self.make_folder_of(uri)
        is_local = isinstance(self.filesystem, pafs.LocalFileSystem)
        place = f"{target}.{uuid.uuid4().hex[:8]}.tmp" if is_local else target
        with self.filesystem.open_output_stream(place) as file:
            file.write(text.encode())
        if is_local:
            self.filesystem.move(place, target)

    def make_folder_of(self, uri: str) -> None:
        """Make the folder of a file, where folders are needed.

        Args:
            uri: A file below this root.
        """
        self.filesystem.create_dir(self.path_of(uri).rsplit("/", 1)[0], recursive=True)

    def path_of(self, uri: str) -> str:
        """Translate a URI for `filesystem`.

        Args:
            uri: Below this root.

        Returns:
            The path.
        """
        return f"{self._path}/{self._relative(uri)}"

    def read(self, uri: str) -> bytes | None:
        """Read a small file.

        Args:
            uri: A file below this root.

        Returns:
            Its content, or `None` where there is none.
        """
        return self._read(self._relative(uri))

    def sizes(self, uris: Sequence[str]) -> list[int | None]:
        """Look up the sizes of files, many in one go.

        Args:
            uris: Below this root.

        Returns:
            Bytes of each; `None` where there is no such file.
        """
        infos = self.filesystem.get_file_info([self.path_of(uri) for uri in uris]) if uris else []
        return [info.size if info.type == pafs.FileType.File else None for info in infos]

    def delete(self, uri: str) -> None:
        """Delete a folder and all in it; a missing one is fine.

        Args:
            uri: A folder below this root.
        """
        path = f"{self._path}/{self._relative(uri)}"
        if self.filesystem.get_file_info(path).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(path)

    def _clear_losers(self, attempt: Attempt) -> None:
        """Delete the folders of attempts that were never committed, and the state that a rerun would resume."""
        home = f"{self._path}/{attempt.stage.name}/{attempt.fingerprint}"
        keep = attempt.data_uri.rsplit("/", 1)[1]
        for info in self.filesystem.get_file_info(pafs.FileSelector(home, allow_not_found=True)):
            if info.type == pafs.FileType.Directory and info.base_name != keep:
                self.filesystem.delete_dir(info.path)

    def _relative(self, uri: str) -> str:
        if not uri.startswith(self.root + "/"):
            raise ArtifactError(f"{uri} lies outside of the store {self.root}")
        return uri[len(self.root) + 1 :]

    def _read(self, path: str) -> bytes | None:
        try:
            with self.filesystem.open_input_file(f"{self._path}/{path}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None
