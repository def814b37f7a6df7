"""What lies in a store, from one listing: runs, artifacts, attempts, states, parts, each with size and age.

<stage>/<fingerprint>/manifest.json, attempt-*/, state/    <stage>/parts/<fingerprint>.json, *.parquet    runs/<key>/
"""

from __future__ import annotations

import datetime
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from qwen_core.artifacts import Manifest, Store
from qwen_core.parts import LIST, Part
from qwen_core.stages import STAGES

READERS = 16
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_MANIFEST = "manifest.json"


@dataclass
class Folder:
    """Some files that go or stay together.

    Attributes:
        uri: The folder, or the file.
        bytes: Of all files.
        files: How many.
        newest: When the last of them was written, as Unix time.
    """

    uri: str
    bytes: int = 0
    files: int = 0
    newest: float = 0.0

    def add(self, size: int, written: float) -> None:
        """Count a file.

        Args:
            size: Bytes.
            written: Unix time.
        """
        self.bytes, self.files, self.newest = self.bytes + size, self.files + 1, max(self.newest, written)


@dataclass
class Home:
    """The folder of one fingerprint of a stage.

    Attributes:
        uri: The folder.
        stage: The stage's word.
        fingerprint: Its name.
        manifest: `None` where nothing was committed.
        folders: Attempts and state, by name.
        written: When the manifest was, as Unix time.
    """

    uri: str
    stage: str
    fingerprint: str
    manifest: Manifest | None = None
    folders: dict[str, Folder] = field(default_factory=dict)
    written: float = 0.0

    @property
    def manifest_uri(self) -> str:
        """Where the manifest lies, or would lie."""
        return f"{self.uri}/{_MANIFEST}"

    @property
    def data(self) -> Folder | None:
        """The folder that the manifest names."""
        return self.folders.get(self.manifest.data_uri.rsplit("/", 1)[1]) if self.manifest else None

    def leftovers(self) -> Iterator[tuple[str, Folder]]:
        """List what no manifest names.

        Yields:
            Name and folder of attempts that were not committed, and of state.
        """
        kept = self.data
        yield from ((name, folder) for name, folder in self.folders.items() if folder is not kept)


@dataclass
class Inventory:
    """All that is known of a store.

    Attributes:
        homes: By URI of the manifest.
        runs: URIs of manifests by run key and stage.
        pointers: When a run's newest pointer was written, by run key.
        parts: Files of parts, commits too, by URI.
        torn: Files that a write left when it was killed.
    """

    homes: dict[str, Home] = field(default_factory=dict)
    runs: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    pointers: dict[str, float] = field(default_factory=dict)
    parts: dict[str, Folder] = field(default_factory=dict)
    torn: list[Folder] = field(default_factory=list)


def take_inventory(store: Store) -> Inventory:
    """List a store.

    Args:
        store: Local or an object store.

    Returns:
        What lies in it.
    """
    found = Inventory()
    for path, size, written in _files(store):
        _sort_in(found, store.root, path.split("/"), size, written)
    with ThreadPoolExecutor(READERS) as pool:
        homes = [home for home in found.homes.values() if home.written]
        for home, text in zip(homes, pool.map(lambda home: store.read(home.manifest_uri), homes), strict=True):
            home.manifest = Manifest.model_validate_json(text) if text is not None else None
        named = [(key, stage) for key, stages in found.runs.items() for stage in stages]
        texts = pool.map(lambda one: store.read(f"{store.root}/runs/{one[0]}/{one[1]}.json"), named)
        for (key, stage), text in zip(named, texts, strict=True):
            if text is not None:
                found.runs[key][stage] = str(json.loads(text)["manifest"])
    return found


def _files(store: Store) -> Iterator[tuple[str, int, float]]:
    selector = pafs.FileSelector(store.path_of(f"{store.root}/").rstrip("/"), recursive=True, allow_not_found=True)
    above = len(selector.base_dir) + 1
    for info in store.filesystem.get_file_info(selector):
        if info.type == pafs.FileType.File:
            written = info.mtime or datetime.datetime.now(datetime.UTC)  # a store that does not tell protects all
            yield info.path[above:], info.size, written.timestamp()


def _sort_in(found: Inventory, root: str, names: list[str], size: int, written: float) -> None:
    uri = "/".join([root, *names])
    if names[-1].endswith(".tmp") and names[0] in (*STAGES, "runs"):
        found.torn.append(Folder(uri, size, 1, written))
    elif names[0] == "runs" and len(names) == 3 and names[2].endswith(".json"):
        found.runs[names[1]][names[2].removesuffix(".json")] = ""
        found.pointers[names[1]] = max(found.pointers.get(names[1], 0.0), written)
    elif names[0] in STAGES and len(names) == 3 and names[1] == "parts":
        found.parts[uri] = Folder(uri, size, 1, written)
    elif names[0] in STAGES and len(names) > 2 and _FINGERPRINT.fullmatch(names[1]):
        place = f"{root}/{names[0]}/{names[1]}"
        home = found.homes.setdefault(f"{place}/{_MANIFEST}", Home(place, names[0], names[1]))
        if names[2] == _MANIFEST:
            home.written = written
        elif len(names) > 3:
            home.folders.setdefault(names[2], Folder(f"{place}/{names[2]}")).add(size, written)


def listed_parts(manifest: Manifest, store: Store) -> list[Part]:
    """Read the list of parts of an artifact that has one.

    Args:
        manifest: Of any stage.
        store: Where it lies.

    Returns:
        Its parts; empty for an artifact that holds its files itself.
    """
    text = store.read(manifest.path(LIST)) if LIST in manifest.files else None
    return [Part.model_validate_json(line) for line in (text or b"").decode().splitlines()]


def commit_uri(part: Part) -> str:
    """Name the file that commits a part.

    Args:
        part: The part.

    Returns:
        Its URI.
    """
    return f"{part.uri.rpartition('/')[0]}/{part.fingerprint}.json"
