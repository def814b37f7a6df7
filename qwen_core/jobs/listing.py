"""Which files a path, a folder, a glob or an object store's address stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow.fs as pafs

from qwen_core.errors import InputError
from qwen_core.filesystem import open_filesystem, reason_of

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class File:
    """A file: its address, its size in bytes, when it was last written (nanoseconds, 0 where unknown)."""

    path: str
    size: int
    changed_at: int


@dataclass
class Listing:
    """What was found: files in the order of their paths, and paths that could not be looked at."""

    files: list[File] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def list_files(name: str) -> Listing:
    """List the files of an input; hidden ones, and those in hidden folders, are passed over.

    Args:
        name: A file, a folder, a glob (`**` for any depth), local or at an object store's address.

    Returns:
        The files. A folder that is reached twice, through links that lead back to it too, is listed once.

    Raises:
        InputError: There is no such file or folder, the bucket is missing, or access is refused.
    """
    found = _remote(name) if "://" in name else _local(name)
    if not found.files and not found.unreadable:
        raise InputError(f"no such file or folder, or an empty one: {name}. Give files, folders or globs.")
    found.files.sort(key=lambda file: file.path.split("/"))
    return found


def title_of(name: str) -> str:
    """Give an input a short name: the file's or folder's, without endings; of a glob the folder's that it begins with.

    Args:
        name: The input.

    Returns:
        The name, for the documents' `source`.
    """
    parts = [part for part in re.split(r"[/\\]+", name.partition("?")[0] if "://" in name else name) if part]
    fixed = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    last = parts[fixed - 1] if 0 < fixed < len(parts) else parts[-1]
    return PurePosixPath(last).name.split(".")[0] or last


def _local(name: str) -> Listing:
    found = Listing()
    place = Path(name).expanduser()
    seen: set[tuple[int, int]] = set()
    if place.exists() or place.is_symlink():
        _gather(str(place), found, seen)
    elif "**" in name:
        # glob itself follows links that lead back to where they stand, again and again
        base = str(place)[: _MAGIC.search(str(place)).start()].rpartition("/")[0] or "/"  # type: ignore[union-attr]
        _walk(base, found, seen)
        pattern = _pattern(str(place))
        found.files = [file for file in found.files if pattern.fullmatch(file.path)]
    else:
        for path in sorted(glob.glob(str(place))):  # noqa: PTH207 - absolute patterns
            _gather(path, found, seen)
    return found


def _gather(path: str, found: Listing, seen: set[tuple[int, int]]) -> None:
    if os.path.isdir(path):  # noqa: PTH112 - false, not an error, where it cannot be told
        _walk(path, found, seen)
    else:
        _add(path, found)


def _walk(base: str, found: Listing, seen: set[tuple[int, int]]) -> None:
    def note(fault: OSError) -> None:
        found.unreadable.append(str(fault.filename or base))

    for folder, folders, files in os.walk(base, followlinks=True, onerror=note):
        status = os.stat(folder)  # noqa: PTH116 - one call a folder
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                _add(f"{folder.rstrip('/')}/{name}", found)


def _add(path: str, found: Listing) -> None:
    try:
        path.encode()
        status = os.stat(path)  # noqa: PTH116 - one call a file
    except UnicodeEncodeError:  # a name in another encoding, which no column could hold
        found.unreadable.append(path.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        return
    except OSError:  # a link to nothing, or a file that has gone
        found.unreadable.append(path)
        return
    if os.path.isfile(path):  # noqa: PTH113 - no sockets or devices
        found.files.append(File(path, status.st_size, status.st_mtime_ns))


def _remote(name: str) -> Listing:
    filesystem, path = open_filesystem(name)
    scheme, _, rest = name.partition("://")
    query = f"?{rest.partition('?')[2]}" if "endpoint_override=" in rest else ""
    magic = _MAGIC.search(path)
    base = path[: magic.start()].rpartition("/")[0] if magic else path
    if not base:
        raise InputError(f"{name} names no bucket: give {scheme}://BUCKET/FOLDER, the bucket without * or ?")
    try:
        infos = list(_infos(filesystem, base))
    except OSError as fault:
        raise InputError(f"{name} cannot be listed: {reason_of(fault)}") from fault
    pattern = _pattern(path) if magic else None
    files = [
        File(f"{scheme}://{info.path}{query}", info.size, info.mtime_ns or 0)
        for info in infos
        if info.type == pafs.FileType.File and not _is_hidden(info.path, base) and _is_meant(info.path, pattern)
    ]
    return Listing(files)


def _is_meant(path: str, pattern: re.Pattern[str] | None) -> bool:
    """Tell whether a pattern matches a file or a folder that it lies in."""
    names = path.split("/")
    return pattern is None or any(pattern.fullmatch("/".join(names[:size])) for size in range(1, len(names) + 1))


def _infos(filesystem: pafs.FileSystem, base: str) -> Iterator[pafs.FileInfo]:
    info = filesystem.get_file_info(base)
    if info.type == pafs.FileType.File:
        yield info
    else:  # a missing bucket is an error here, a missing folder an empty list
        yield from filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found="/" in base))


def _is_hidden(path: str, base: str) -> bool:
    return any(part.startswith(".") for part in path[len(base) :].split("/"))


def _pattern(text: str) -> re.Pattern[str]:
    """Translate a glob: `*` and `?` stay within a name, `**/` goes any depth."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", text)
    signs = {"**/": r"(?:[^/.][^/]*/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(signs.get(part) or _bracket(part) for part in parts))


def _bracket(part: str) -> str:
    is_set = part.startswith("[") and part.endswith("]") and len(part) > 2
    return f"[{'^' if part[1] == '!' else ''}{part[1:-1].lstrip('!')}]" if is_set else re.escape(part)
