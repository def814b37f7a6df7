"""Another store to which things are moved before they go: laid out alike, with addresses of its own.

data files ─▶ same place below the archive ─▶ parts' commits ─▶ manifest, last ─▶ pointers

What was archived already is not copied again. To bring it back, copy it to where it was, by the same means: an archive
of the archive (`--store ARCHIVE --archive STORE`) does so.
"""

from __future__ import annotations

import json

import pyarrow.fs as pafs

from qwen_core.artifacts import Store
from qwen_core.collect.inventory import Home, commit_uri, listed_parts
from qwen_core.errors import InputError
from qwen_core.parts import LIST

_MANIFEST = "manifest.json"


class Archive:
    """Copies into another store."""

    def __init__(self, store: Store, root: str) -> None:
        """Name the place.

        Args:
            store: Where things lie.
            root: Of the archive, local or in an object store.

        Raises:
            InputError: One lies within the other.
        """
        root = root.rstrip("/")
        if f"{root}/".startswith(f"{store.root}/") or f"{store.root}/".startswith(f"{root}/"):
            raise InputError(
                f"the archive {root} and the store {store.root} lie within one another: give --archive a place outside"
            )
        self._from, self._to = store, Store(root)

    def add_parts(self, uris: list[str]) -> None:
        """Copy files of parts.

        Args:
            uris: Rows first, commits after them.
        """
        for uri in uris:
            self._copy(uri)

    def add_artifact(self, home: Home) -> None:
        """Copy an artifact, its manifest last.

        Args:
            home: Its folder.
        """
        assert home.manifest is not None
        data = home.manifest.data_uri
        if self._to.read(self._place(home.manifest_uri)) is not None:
            return
        for part in listed_parts(home.manifest, self._from):  # those too that others share, and that stay
            for uri in filter(None, (part.uri, part.dropped, commit_uri(part))):
                self._copy(uri)
        for name, _ in self._from.files(data):
            self._copy(f"{data}/{name}")
        self._copy(home.manifest_uri)

    def add_runs(self, keys: list[str]) -> None:
        """Copy the pointers of pipeline runs.

        Args:
            keys: Their run keys.
        """
        for key in keys:
            place = f"{self._from.root}/runs/{key}"
            for name, _ in self._from.files(place):
                self._copy(f"{place}/{name}")

    def _place(self, uri: str) -> str:
        return self._to.root + uri[len(self._from.root) :]

    def _copy(self, uri: str) -> None:
        """Copy a file; in those that hold addresses they are rewritten."""
        target = self._place(uri)
        if self._holds_addresses(uri):
            text = self._from.read(uri)
            if text is not None:
                self._to.write(target, self._rewritten(text.decode()))
            return
        if self._from.sizes([uri]) == self._to.sizes([target]):
            return
        self._to.make_folder_of(target)
        pafs.copy_files(
            self._from.path_of(uri),
            self._to.path_of(target),
            source_filesystem=self._from.filesystem,
            destination_filesystem=self._to.filesystem,
        )

    def _holds_addresses(self, uri: str) -> bool:
        names = uri[len(self._from.root) + 1 :].split("/")
        is_commit = names[-1].endswith(".json") and (names[0] == "runs" or names[1:2] == ["parts"])
        return is_commit or names[-1] in (_MANIFEST, LIST)

    def _rewritten(self, text: str) -> str:
        old, new = (json.dumps(f"{root}/", ensure_ascii=False)[:-1] for root in (self._from.root, self._to.root))
        return text.replace(old, new)
