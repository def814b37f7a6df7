"""Any fastText language model by path: lid.176, GlotLID, OpenLID, NLLB and models of one's own.

Their labels differ (`__label__en`, `__label__eng_Latn`, `__label__zho_Hans`, `__label__cmn_Hani`); here all become
ISO 639-1 where a code of two letters exists, else ISO 639-3, and an ISO 15924 script.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.language.embedded import Floats, Labels, Strings
from qwen_core.data.language.fasttext_file import check_file
from qwen_core.data.language.iso639 import short_code
from qwen_core.errors import InputError, MissingDependencyError

_MAX_CHARS = 1500
_LABEL = re.compile(r"__label__(?P<language>[a-z]{2,3})(?:[_-](?P<script>[A-Z][a-z]{3}))?(?:[_-]\w+)?")
_SHOWN = 5


@dataclass(frozen=True)
class FasttextLanguages:
    """A loaded model and what its labels mean."""

    model: Any
    meanings: dict[str, tuple[str, str | None]]
    """Language and script of each label; no script where the label has none."""

    @staticmethod
    @functools.lru_cache(maxsize=2)
    def load(path: str) -> FasttextLanguages:
        """Load a model, once for each process.

        Args:
            path: Model file.

        Returns:
            The model.

        Raises:
            InputError: The file is missing or damaged, or its labels are no languages.
            MissingDependencyError: fastText is not installed.
        """
        model = _open(path)
        labels = [str(name) for name in model.get_labels()]
        meanings = {name: meaning for name in labels if (meaning := read_label(name)) is not None}
        if len(meanings) < len(labels) or not any(len(language) == 2 for language, _ in meanings.values()):
            odd = [name for name in labels if name not in meanings] or labels
            raise InputError(
                f"the labels of '{path}' are no languages, such as {', '.join(odd[:_SHOWN])}; 'ingest.language_model' "
                "takes a model whose labels look like __label__en or __label__eng_Latn"
            )
        return FasttextLanguages(model, meanings)

    def labels(self, text: pa.Array, scripts: Strings) -> Labels:
        """Label texts.

        Args:
            text: Strings, no nulls.
            scripts: Script of each by its letters, for labels that name none; `Zyyy` where there is no letter.

        Returns:
            Languages, scores and scripts.
        """
        lines = pc.replace_substring_regex(
            pc.utf8_slice_codeunits(text, 0, _MAX_CHARS), pattern=r"[\s\x00]+", replacement=" "
        ).to_pylist()
        # fastText 0.9.3 fails on one string under NumPy 2, not on a list of them.
        names, chances = self.model.predict(lines, k=1) if lines else ([], [])
        found = [self.meanings[row[0]] if row else ("und", None) for row in names]
        score: Floats = np.array([row[0] if len(row) else 0.0 for row in chances], np.float32).clip(0, 1)
        told = np.array([script or "" for _, script in found], "U4")
        has_letters = scripts != "Zyyy"
        languages = np.where(has_letters, np.array([language for language, _ in found], "U8"), "und")
        script = np.where(has_letters & _is_told(told), told, scripts)
        return languages, np.where(has_letters, score, 0).astype(np.float32), script


def read_label(name: str) -> tuple[str, str | None] | None:
    """Read a label of a language model.

    Args:
        name: Such as `__label__zho_Hans`.

    Returns:
        Language and script (`None` where it has none), or `None` where this is no language's label.
    """
    match = _LABEL.fullmatch(name)
    if match is None:
        return None
    if name == "__label__als":  # Wikipedia's, thus lid.176's, code for Alemannic; in ISO 639-3 it is Tosk Albanian
        return "gsw", None
    return short_code(match["language"]), match["script"]


def _is_told(scripts: Strings) -> Any:
    """Tell which labels have a script that says more than the letters: Han characters alone leave open which."""
    return ~np.isin(scripts, ["", "Hani", "Zyyy", "Zxxx", "Xxxx"])


def _open(path: str) -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependencyError("'ingest.language_model' needs fastText: pip install 'qwen-core[data]'") from error
    check_file(Path(path))
    try:
        model = fasttext.load_model(path)
        model.predict(["a"], k=1)
    except (ValueError, RuntimeError, MemoryError, UnicodeDecodeError) as error:
        raise InputError(f"fastText could not load '{path}': {error}") from error
    return model
