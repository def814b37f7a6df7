"""Text to measure on: the shared data where it is there, else the bundled documents."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import qwen_core.demo

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
_WORD_END = re.compile(r"(?<=[^\W\d_])\b")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def is_here(*names: str) -> bool:
    """Tell whether the shared data is there.

    Args:
        names: Files or folders in it.

    Returns:
        Whether all are.
    """
    return all((SHARED / name).exists() for name in names)


def rows(name: str, step: int = 1) -> list[dict[str, Any]]:
    """Read a file of the shared data.

    Args:
        name: JSON lines, compressed or not, or plain text with a document on each line.
        step: Every how many-th line is taken.

    Returns:
        The lines' objects; `text` alone for plain text. Empty lines are left out.
    """
    return _rows(SHARED / name, step)


def texts(names: Sequence[str] = ("pretrain/en_tech", "pretrain/en_books", "pretrain/zh_tech")) -> list[str]:
    """Read documents.

    Args:
        names: Files of the shared data, without `.jsonl.gz`.

    Returns:
        Their texts; those of the bundled documents, ten times, where the shared data is missing.
    """
    files = [f"{name}.jsonl.gz" for name in names]
    if is_here(*files):
        return [row["text"] for file in files for row in rows(file)]
    languages = dict.fromkeys("zh" if "/zh_" in name else "en" for name in names)
    return [text for language in languages for text in bundled_texts(language) for _ in range(10)]


def bundled_texts(language: str) -> list[str]:
    """Read the documents that the project ships.

    Args:
        language: `en` or `zh`.

    Returns:
        Their texts.
    """
    return [row["text"] for row in _rows(Path(qwen_core.demo.__file__).parent / f"documents_{language}.jsonl", 1)]


def megabytes(documents: Iterable[str]) -> float:
    """Measure texts.

    Args:
        documents: Any.

    Returns:
        Millions of UTF-8 bytes.
    """
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in documents) / 1e6


def copies(documents: Sequence[str], count: int) -> Iterator[str]:
    """Make a corpus larger without making it repeat itself.

    Args:
        documents: The first copy, as it is.
        count: Copies; in each further one every word has another ending and every Han character is another one, so
            that no shingle of one copy stands in another.

    Yields:
        Documents.
    """
    yield from documents
    for number in range(1, count):
        ending = _LETTERS[number % 26] * (1 + number // 26)
        for text in documents:
            moved = _HAN.sub(lambda match, by=number * 131: chr(0x4E00 + (ord(match[0]) - 0x4E00 + by) % 20000), text)
            yield _WORD_END.sub(ending, moved)


def write_jsonl(documents: Iterator[str] | Sequence[str], path: Path) -> int:
    """Write documents as JSON lines.

    Args:
        documents: Texts.
        path: The file.

    Returns:
        UTF-8 bytes of the texts.
    """
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(documents):
            size += len(text.encode())
            file.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
    return size


def _rows(path: Path, step: int) -> list[dict[str, Any]]:
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).split(b"\n")
    chosen = [line for line in lines[::step] if line.strip()]
    if path.suffix == ".txt":
        return [{"text": line.decode().strip()} for line in chosen]
    return [json.loads(line) for line in chosen]
