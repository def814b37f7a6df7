"""Keyword lists: whole words where words have bounds, substrings in Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.errors import InputError

_UNBOUNDED = frozenset({"zh", "ja", "th"})


def read_keywords(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Read lists of terms.

    Args:
        paths: JSON files of terms by language.

    Returns:
        Terms by language, all files together, sorted.

    Raises:
        InputError: A file is missing or of another form.
    """
    terms: dict[str, set[str]] = {}
    for path in paths:
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            for language, listed in tree.items():
                terms.setdefault(language, set()).update(str(term).lower() for term in listed)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f'{path}: expected JSON such as {{"en": ["term"]}} ({error})') from error
    return {language: sorted(listed) for language, listed in terms.items()}


def pattern_of(terms: dict[str, list[str]]) -> str | None:
    """Make one RE2 pattern of all terms.

    Args:
        terms: By language.

    Returns:
        The pattern, or `None` where there is no term.
    """
    bounded = [re.escape(term) for language, listed in terms.items() if language not in _UNBOUNDED for term in listed]
    free = [re.escape(term) for language, listed in terms.items() if language in _UNBOUNDED for term in listed]
    parts = ([rf"\b(?:{'|'.join(bounded)})\b"] if bounded else []) + (["|".join(free)] if free else [])
    return f"(?i:{'|'.join(parts)})" if parts else None


def has_keyword(text: pa.ChunkedArray, pattern: str | None) -> npt.NDArray[np.bool_]:
    """Find texts that hold a term.

    Args:
        text: Strings.
        pattern: As `pattern_of` gave it.

    Returns:
        One answer for each text.
    """
    if pattern is None:
        return np.zeros(len(text), dtype=bool)
    return np.asarray(pc.match_substring_regex(text, pattern=pattern)).astype(bool)
