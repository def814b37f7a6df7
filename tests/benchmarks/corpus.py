"""Text to measure on: the shared data where it is there, else the bundled documents."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import qwen_core.demo

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
_WORD_END = re.compile(r"(?<=[^\W\d_])\b")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def texts(names: Sequence[str] = ("pretrain/en_tech", "pretrain/en_books", "pretrain/zh_tech")) -> list[str]:
    """Read documents.

    Args:
        names: Files of the shared data, without `.jsonl.gz`.

    Returns:
        Their texts; those of the bundled documents, ten times, where the shared data is missing.
    """
    files = [SHARED / f"{name}.jsonl.gz" for name in names]
    if all(file.is_file() for file in files):
        return [json.loads(line)["text"] for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    folder = Path(qwen_core.demo.__file__).parent
    lines = (line for name in ("en", "zh") for line in (folder / f"documents_{name}.jsonl").open(encoding="utf-8"))
    return [text for text in [json.loads(line)["text"] for line in lines] for _ in range(10)]


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
