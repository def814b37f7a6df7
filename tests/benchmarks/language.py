"""Language labels of the Declaration of Human Rights: rightness and speed beside py3langid, the model that ours holds.

Lingua takes part where it is installed (`pip install lingua-language-detector`). Printed too: what is still confused,
how far scores are the share of right labels, and how often prose is taken for source code and source code is missed.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from qwen_core.data.language import label
from tests.benchmarks.corpus import is_here, megabytes, rows, texts
from tests.benchmarks.measure import compare, timed, times_as_fast

_FILE = "langid/udhr.jsonl.gz"
_MIN_CHARS, _MAX_CHARS, _TURNS = 20, 20_000, 3

Identify = Callable[[list[str]], list[str]]


def main() -> None:
    """Measure on the shared data; without them there is nothing to measure."""
    if not is_here(_FILE, "pretrain"):
        print(f"Language labels: skipped, {_FILE} is not there")
        return
    labelled = [row for row in rows(_FILE) if len(row["text"]) >= _MIN_CHARS]
    paragraphs, truth = [row["text"] for row in labelled], np.array([row["lang"] for row in labelled])
    contenders = {"qwen-core": _ours, **_peers()}
    size = megabytes(paragraphs)
    print(f"Language of {len(paragraphs)} paragraphs, {size:.1f} MB, CPU time of one core, {_TURNS} turns")
    ours = None
    for name, work in contenders.items():
        work(paragraphs[:5])  # models load at the first call
        seconds, answer = timed(lambda work=work: work(paragraphs), _TURNS)
        found = np.array(answer)
        ratio = times_as_fast(seconds, ours) if ours else ""
        ours = ours or seconds
        print(f"  {name:28} {(found == truth).mean():7.2%} right {size / seconds:8.2f} MB/s{ratio}")
        print(f"    confused: {_confused(truth, found)}")
    _calibration(paragraphs, truth)
    _code()
    books = [text[:_MAX_CHARS] for text in texts(["pretrain/en_books"])][:50]
    peer = _peers()["py3langid"]
    compare(
        "Language of English books in documents of 20,000 characters; ours reads three pieces of each",
        "MB/s",
        megabytes(books),
        lambda: _ours(books),
        {
            "py3langid, whole": lambda: peer(books),
            "py3langid, 1,500 characters": lambda: peer([t[:1500] for t in books]),
        },
    )


def _ours(texts: list[str]) -> list[str]:
    return label(pa.array(texts))[0].to_pylist()


def _peers() -> dict[str, Identify]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    peers: dict[str, Identify] = {"py3langid": lambda texts: [identifier.classify(text)[0] for text in texts]}
    if importlib.util.find_spec("lingua"):
        from lingua import LanguageDetectorBuilder

        detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

        def fast_mode(texts: list[str]) -> list[str]:
            found = (detector.detect_language_of(text) for text in texts)
            return [language.iso_code_639_1.name.lower() if language else "und" for language in found]

        peers["lingua, fast mode"] = fast_mode
    return peers


def _confused(truth: np.ndarray, found: np.ndarray) -> str:
    pairs = Counter(zip(truth[truth != found].tolist(), found[truth != found].tolist(), strict=True))
    return ", ".join(f"{right} as {wrong} {count}" for (right, wrong), count in pairs.most_common(8)) or "nothing"


def _calibration(paragraphs: list[str], truth: np.ndarray) -> None:
    """Cut the paragraphs into pieces of 40 characters, for whole ones leave hardly a score below one."""
    pieces = [
        (text[at : at + 40], name) for text, name in zip(paragraphs, truth, strict=True) for at in range(0, 120, 40)
    ]
    pieces = [(text, name) for text, name in pieces if len(text) == 40]
    languages, scores, _ = label(pa.array([text for text, _ in pieces]))
    right = np.array(languages.to_pylist()) == np.array([name for _, name in pieces])
    score = scores.to_numpy()
    print(f"Scores of {len(pieces)} pieces of 40 characters, {right.mean():.2%} right")
    for low in np.arange(0, 1, 0.2):
        rows = (score >= low) & ((score < low + 0.2) | (low > 0.7))
        if rows.any():
            share = f"score {score[rows].mean():.2f}, right {right[rows].mean():.2f}"
            print(f"  {low:.1f} to {low + 0.2:.1f}: {rows.sum():6} pieces, {share}")


def _code() -> None:
    print("Labelled 'code' without a look at file names")
    for name in ("code", "en_tech", "zh_tech", "multi_tech", "en_books", "zh_classics"):
        found = _ours([text[:_MAX_CHARS] for text in texts([f"pretrain/{name}"])])
        print(f"  {name:28} {found.count('code'):6} of {len(found):6} ({found.count('code') / len(found):.2%})")
