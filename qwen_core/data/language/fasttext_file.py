"""Whether a fastText model file is whole: its parts say how long they are, and fastText itself does not look.

magic, version ─▶ settings ─▶ words and labels ─▶ input matrix ─▶ output matrix ─▶ the end, or the file was cut short

fastText 0.9.3 reads a file that was cut short without a word and then answers with what the memory held, or crashes.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from qwen_core.errors import InputError

_MAGIC, _VERSIONS = 793712314, (11, 12)
_NUM_SETTINGS_BYTES = 12 * 4 + 8
_SUPERVISED = 3
_ENTRY_BYTES = 8 + 1  # behind a word's closing zero: count and kind
_CENTROIDS = 256


class _Reader:
    """Walks through the file; every step beyond its end is an error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def skip(self, size: int) -> None:
        self.at += size
        if size < 0 or self.at > len(self.data):
            raise struct.error("the file ends early")


def check_file(path: Path) -> None:
    """Check that a file is a whole fastText classifier.

    Args:
        path: Model file.

    Raises:
        InputError: It is missing, no fastText file, no classifier, or cut short.
    """
    if not path.is_file():
        raise InputError(f"'ingest.language_model' names no file: {path}")
    advice = "'ingest.language_model' takes a .bin or .ftz file of a fastText classifier"
    if path.stat().st_size < 8:
        raise InputError(f"'{path}' is no fastText model; {advice}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, version = struct.unpack_from("<ii", data)
        if magic != _MAGIC or version not in _VERSIONS:
            raise InputError(f"'{path}' is no fastText model; {advice}")
        reader = _Reader(data)
        try:
            kind = _walk(reader)
        except (struct.error, ValueError) as error:
            raise InputError(f"'{path}' is cut short or damaged ({error}); fetch it again") from error
        if kind != _SUPERVISED:
            raise InputError(f"'{path}' holds word vectors, no classifier; {advice}")


def _walk(reader: _Reader) -> int:
    """Go through all parts; give the kind of model."""
    reader.skip(8)
    kind = reader.take("8i")[7]
    reader.skip(_NUM_SETTINGS_BYTES - 8 * 4)
    size, _, _, _, pruned = reader.take("3i2q")
    for _ in range(size):
        end = reader.data.find(b"\0", reader.at)
        if end < 0:
            raise struct.error("the list of words ends early")
        reader.skip(end + 1 - reader.at + _ENTRY_BYTES)
    reader.skip(max(0, pruned) * 8)
    _matrix(reader, is_quantised=bool(reader.take("B")[0]))
    (is_output_quantised,) = reader.take("B")
    _matrix(reader, is_quantised=bool(is_output_quantised))
    return kind


def _matrix(reader: _Reader, is_quantised: bool) -> None:
    if not is_quantised:
        rows, columns = reader.take("2q")
        reader.skip(rows * columns * 4)
        return
    has_norms, rows, _, code_bytes = reader.take("B2qi")
    reader.skip(code_bytes)
    _quantiser(reader)
    if has_norms:
        reader.skip(rows)
        _quantiser(reader)


def _quantiser(reader: _Reader) -> None:
    dimensions, _, _, _ = reader.take("4i")
    reader.skip(dimensions * _CENTROIDS * 4)
