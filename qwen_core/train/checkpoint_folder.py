"""Folders of checkpoints: written file by file with checksums, committed by a manifest, verified before they are read.

    <root>/step-00000200-3f9c2a1b/engine/...            shards, one or more from each worker
    <root>/step-00000200-3f9c2a1b/handover-00000.json   worker 0 has written its files: their sizes and checksums
    <root>/step-00000200-3f9c2a1b/manifest.json         last of all: only now the folder is a checkpoint

The end of a folder's name is drawn anew by each start of a run, so that a killed start and its successor never write
into one folder. No rename is relied upon: object stores have none, and a manifest that was half written fails its own
checksum. CRC-32 finds every flipped bit, and each burst of up to 32, at 3.9 GiB/s a core here (SHA-256 1.7); it is no
guard against forgery, which is why nothing is unpickled that is not on a list of harmless types (`parallel.snapshot`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow.fs as pafs

from qwen_core.filesystem import is_passing, open_filesystem

MANIFEST = "manifest.json"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class FileSum:
    """What a file must be: its bytes and their CRC-32."""

    size: int
    crc32: int


@dataclass(frozen=True)
class CheckpointManifest:
    """What a committed checkpoint holds.

    Attributes:
        step: Optimiser steps that were done when it was taken.
        token: Of the start of the run that wrote it.
        identity: What a run must share with it to go on from it, by name: model, data, tokenizer.
        plan: How the model was spread; another plan needs the shards to be cut anew.
        workers: Number of processes that wrote it.
        code_version: Of this package.
        created_at: UTC, ISO 8601.
        validation_loss: Of exactly these weights; `None` where it was not measured.
        files: By path below the checkpoint's folder.
        owners: Worker that wrote each file.
    """

    step: int
    token: str
    identity: dict[str, Any]
    plan: dict[str, Any]
    workers: int
    code_version: str
    created_at: str
    validation_loss: float | None = None
    files: dict[str, FileSum] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(told.size for told in self.files.values())

    def to_json(self) -> str:
        """Write it with a checksum of itself."""
        body = dataclasses.asdict(self)
        return json.dumps(body | {"crc32": _sum_of(body)}, indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> CheckpointManifest:
        """Read what `to_json` wrote.

        Args:
            text: The file's content.

        Returns:
            The manifest.

        Raises:
            ValueError: It is no manifest, or not as it was written.
        """
        try:
            body = json.loads(text)
            told = body.pop("crc32")
            if told != _sum_of(body):
                raise ValueError("its checksum does not match")
            body["files"] = {name: FileSum(**figures) for name, figures in body["files"].items()}
            return cls(**body)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as fault:
            raise ValueError(f"it cannot be read ({type(fault).__name__}: {fault})") from fault


@dataclass(frozen=True)
class Found:
    """A folder below the root that is, or was to be, a checkpoint.

    Attributes:
        name: Of the folder.
        manifest: `None` where there is none, or none that can be read.
        fault: Why its manifest cannot be read; empty where it can, or where the folder was never committed.
    """

    name: str
    manifest: CheckpointManifest | None
    fault: str = ""

    @property
    def step(self) -> int:
        """From the folder's name."""
        return int(self.name.split("-")[1])


class CheckpointRoot:
    """All checkpoints of a run, below a local folder or an object store's address."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.filesystem, path = open_filesystem(self.uri)
        self._path = path.rstrip("/")
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, *names: str) -> str:
        """Join names below the root, as `filesystem` takes them; a usable local path where `is_local`."""
        return "/".join((self._path, *names))

    def find(self) -> list[Found]:
        """List the folders that are, or were to be, checkpoints.

        Returns:
            Those of the latest step first; of one step, those that were committed later first.
        """
        infos = self.filesystem.get_file_info(pafs.FileSelector(self._path, allow_not_found=True))
        names = [info.base_name for info in infos if info.type == pafs.FileType.Directory and _is_name(info.base_name)]
        found = [self._look(name) for name in names]
        return sorted(found, key=lambda f: (f.step, f.manifest.created_at if f.manifest else ""), reverse=True)

    def _look(self, name: str) -> Found:
        text = self.read(name, MANIFEST)
        if text is None:
            return Found(name, None)
        try:
            return Found(name, CheckpointManifest.from_json(text))
        except ValueError as fault:
            return Found(name, None, f"{MANIFEST}: {fault}")

    def read(self, *names: str) -> bytes | None:
        """Read a small file; `None` where there is none."""
        try:
            with self.filesystem.open_input_file(self.path(*names)) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, file: str, fill: Callable[[IO[bytes]], object]) -> FileSum:
        """Write a file of a checkpoint and see it safely onto the disk.

        Args:
            name: The checkpoint's folder.
            file: Path below it.
            fill: Gets a stream that takes bytes.

        Returns:
            Its size and checksum, taken while writing: what is read back later is held against it.
        """
        target = self.path(name, file)
        self.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
        with self._open(target) as raw:
            counting = _Counting(raw)
            fill(counting)  # type: ignore[arg-type]
        return FileSum(counting.size, counting.crc32)

    def write_text(self, name: str, file: str, text: str) -> None:
        """Write a small file so that a reader sees all of it or, on a local disk, none."""
        if not self.is_local:
            self.write(name, file, lambda out: out.write(text.encode()))
            return
        self.write(name, f"{file}.tmp", lambda out: out.write(text.encode()))
        Path(self.path(name, f"{file}.tmp")).rename(self.path(name, file))
        _sync_folder(self.path(name))

    @contextlib.contextmanager
    def _open(self, target: str) -> Iterator[IO[bytes]]:
        if not self.is_local:
            with self.filesystem.open_output_stream(target, compression=None) as out:
                yield out
            return
        with Path(target).open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _sync_folder(target.rsplit("/", 1)[0])

    def exist(self, name: str, files: Iterable[str]) -> list[bool]:
        """Look up whether files of a checkpoint are there, in one go."""
        infos = self.filesystem.get_file_info([self.path(name, file) for file in files])
        return [info.type == pafs.FileType.File for info in infos]

    def fault_of(self, name: str, file: str, told: FileSum) -> str:
        """Hold a file against its size and checksum.

        Args:
            name: The checkpoint's folder.
            file: Path below it.
            told: What the manifest says.

        Returns:
            What is wrong with it; empty where it is whole.

        Raises:
            OSError: The disk or the network failed in a way that may pass: this says nothing about the file.
        """
        info = self.filesystem.get_file_info(self.path(name, file))
        if info.type != pafs.FileType.File:
            return f"{file} is missing"
        if info.size != told.size:
            return f"{file} has {info.size:,} bytes instead of {told.size:,}"
        crc32 = 0
        try:
            with self.filesystem.open_input_stream(self.path(name, file), compression=None) as stream:
                while block := stream.read(_BLOCK_BYTES):
                    crc32 = zlib.crc32(block, crc32)
        except OSError as fault:
            if is_passing(fault):
                raise
            return f"{file} cannot be read ({fault})"
        return "" if crc32 == told.crc32 else f"{file} was changed after it was written (CRC-32 does not match)"

    def bring(self, name: str, files: Iterable[str], target: Path) -> Path:
        """Make files of a checkpoint available on this machine.

        Args:
            name: The checkpoint's folder.
            files: Paths below it.
            target: Local folder to copy into, where the root is an object store.

        Returns:
            The local folder that holds them.
        """
        if self.is_local:
            return Path(self.path(name))
        for file in files:
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            pafs.copy_files(
                self.path(name, file),
                str(place),
                source_filesystem=self.filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
            )
        return target

    def delete(self, name: str) -> None:
        """Delete a folder below the root, its manifest first: while the rest goes, it is no checkpoint any more."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name, MANIFEST))
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path(name))


class _Counting(io.RawIOBase):
    """A stream that sums what passes through it; torch writes front to back, so no seeking is needed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.size = self.crc32 = 0

    def write(self, block: Any) -> int:
        self._raw.write(block)
        self.crc32 = zlib.crc32(block, self.crc32)
        size = memoryview(block).nbytes
        self.size += size
        return size

    def writable(self) -> bool:
        return True


def folder_name(step: int, token: str) -> str:
    """Name the folder of a step's checkpoint.

    Args:
        step: Optimiser steps done.
        token: Of this start of the run.

    Returns:
        One word that sorts by step.
    """
    return f"step-{step:08d}-{token}"


def _is_name(name: str) -> bool:
    parts = name.split("-")
    return len(parts) == 3 and parts[0] == "step" and parts[1].isdigit()


def _sum_of(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _sync_folder(path: str) -> None:
    """See a folder's list of names onto the disk; some network file systems refuse, and need it not."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
