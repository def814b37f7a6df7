"""What a file holds, told by its name, and by its first bytes where the name is wrong."""

from __future__ import annotations

from pathlib import PurePath

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".adoc"})
CODE = frozenset(
    [
        ".py",
        ".pyi",
        ".js",
        ".jsx",
        ".ts",
        ".tsx",
        ".rs",
        ".go",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cu",
        ".java",
        ".kt",
        ".scala",
        ".rb",
        ".php",
        ".sh",
        ".sql",
        ".r",
        ".jl",
        ".lua",
        ".swift",
        ".toml",
        ".yaml",
        ".yml",
        ".css",
    ]
)
_KINDS = {
    "records": frozenset({".jsonl", ".ndjson", ".json"}),
    "table": frozenset({".csv", ".tsv"}),
    "parquet": frozenset({".parquet"}),
    "web": frozenset({".warc", ".wet", ".arc"}),
    "page": frozenset({".html", ".htm", ".xhtml"}),
    "prose": PROSE,
    "code": CODE,
}
_PACKED = frozenset({".gz", ".zst", ".bz2", ".xz"})
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MAX_CONTROL_RATIO = 0.3
_TEXT_CONTROLS = b"\t\n\r\f\x00\x1b"


def kind_of(path: PurePath | str) -> str | None:
    """Tell by its name what a file holds.

    Args:
        path: The file, or its address.

    Returns:
        `records`, `table`, `parquet`, `web`, `page`, `prose`, `code`, or `None` for what is not read.
    """
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return next((kind for kind, endings in _KINDS.items() if last in endings), None)


def packing_of(head: bytes) -> str | None:
    """Tell by its first bytes how a file is packed; names lie.

    Args:
        head: At least six bytes, fewer where the file is shorter.

    Returns:
        `gzip`, `zstd`, `bzip2`, `xz`, or `None` for a file that is not packed.
    """
    return next((packing for magic, packing in _MAGIC.items() if head.startswith(magic)), None)


def is_named_packed(path: PurePath | str) -> bool:
    """Tell whether a file's name says that it is packed."""
    return PurePath(path).suffix.lower() in _PACKED


def is_utf16(head: bytes) -> bool:
    """Tell by its mark whether a text is UTF-16, whose line ends are no single bytes."""
    return head[:2] in _UTF16


def is_binary(head: bytes) -> bool:
    """Tell whether bytes are no text: many are control characters. NUL does not count, for some text has it.

    Args:
        head: The first bytes of a file.

    Returns:
        Whether no text can be had of it.
    """
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"PK\x03\x04", b"\x7fELF")):
        return True
    controls = bytes(byte for byte in range(32) if byte not in _TEXT_CONTROLS)
    return not is_utf16(head) and len(head) - len(head.translate(None, controls)) > _MAX_CONTROL_RATIO * len(head)
