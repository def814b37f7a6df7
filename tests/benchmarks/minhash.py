"""MinHash from text to signature, beside datatrove, rensa and datasketch: megabytes a second of one core, and recall.

Real text where there is some (the folder of shared data), else the bundled documents. CPU time of the process counts,
so that neither threads nor a busy machine help or harm anyone; each contender is given as much text as it does in a
few seconds, drawn evenly, and ours is timed on the same. Those that are missing are left out.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import itertools
import re
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from datasketch import MinHash
from scipy.sparse import csr_array, triu

from qwen_core.data.index import Index
from qwen_core.data.minhash import shingle_hashes, signatures, sketch, word_hashes
from tests.benchmarks.corpus import is_here, megabytes, rows, texts
from tests.benchmarks.measure import timed, times_as_fast

_NEWS = "neardup/en_news_reuters.jsonl.gz"
_SHINGLE, _SEED, _THRESHOLD = 5, 1, 0.8
_SEEDS = range(1, 11)
_SHAPES = ((14, 8), (32, 8))
_RECALL_SHAPES = ((14, 8), (20, 8), (32, 8))  # FineWeb's, the recipe's default, Data-Juicer's
_TEXTS = {"English": ("pretrain/en_tech", "pretrain/en_books"), "Chinese": ("pretrain/zh_tech", "pretrain/zh_classics")}
_PEER_MEGABYTES = {"datatrove": 1.2, "rensa": 6.0, "datasketch": 4.0}
_WORD = {"English": re.compile(r"\w+"), "Chinese": re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")}
Pairs = set[tuple[int, int]]


def main() -> None:
    """Time signatures of English and Chinese text, then compare what is found with the exact truth."""
    for language, names in _TEXTS.items():
        documents = texts(names)
        for num_buckets, hashes_per_bucket in _SHAPES:
            _speed(language, documents, num_buckets, hashes_per_bucket)
    if is_here(_NEWS):
        _recall([row["text"] for row in rows(_NEWS)])


def _speed(language: str, documents: list[str], num_buckets: int, hashes_per_bucket: int) -> None:
    ours = functools.partial(
        sketch,
        shingle_words=_SHINGLE,
        num_buckets=num_buckets,
        hashes_per_bucket=hashes_per_bucket,
        seed=_SEED,
    )
    size = megabytes(documents)
    print(f"MinHash, {language}, {size:.1f} MB, {_SHINGLE}-word shingles, {num_buckets} x {hashes_per_bucket}")
    print(f"  {'qwen-core':12} {size / timed(lambda: ours(documents))[0]:8.2f} MB/s per core, bands and exact hash too")
    for name, work in _peers(language, num_buckets, hashes_per_bucket).items():
        some = documents[:: max(1, round(size / _PEER_MEGABYTES[name]))]  # drawn evenly
        (theirs, _), (own, _) = timed(lambda w=work, s=some: w(s)), timed(lambda s=some: ours(s))
        print(f"  {name:12} {megabytes(some) / theirs:8.2f} MB/s{times_as_fast(theirs, own)}")


def _peers(language: str, num_buckets: int, hashes_per_bucket: int) -> dict[str, Callable[[list[str]], Any]]:
    num_perm = num_buckets * hashes_per_bucket
    found: dict[str, Callable[[list[str]], Any]] = {
        "datasketch": lambda texts: _datasketch(texts, _WORD[language], num_perm)
    }
    if importlib.util.find_spec("rensa"):
        found["rensa"] = lambda texts: _rensa(texts, _WORD[language], num_perm)
    if language == "English" and importlib.util.find_spec("datatrove"):  # its Chinese words need one more package
        step = _datatrove_step(num_buckets, hashes_per_bucket)
        found["datatrove"] = lambda texts: _datatrove(step, texts)
    return found


def _shingles(text: str, word: re.Pattern[str]) -> list[str]:
    words = word.findall(text.lower())
    return [" ".join(words[place : place + _SHINGLE]) for place in range(max(1, len(words) - _SHINGLE + 1))]


def _datasketch(texts: list[str], word: re.Pattern[str], num_perm: int) -> np.ndarray:
    made = []
    for text in texts:
        one = MinHash(num_perm=num_perm, seed=_SEED)
        one.update_batch([shingle.encode() for shingle in _shingles(text, word)])
        made.append(one.hashvalues)
    return np.stack(made)


def _rensa(texts: list[str], word: re.Pattern[str], num_perm: int, seed: int = _SEED) -> Any:
    import rensa

    return rensa.RMinHash.digest_matrix_from_token_sets([_shingles(text, word) for text in texts], num_perm, seed)


def _datatrove_step(num_buckets: int, hashes_per_bucket: int, seed: int = _SEED) -> Any:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig(n_grams=_SHINGLE, num_buckets=num_buckets, hashes_per_bucket=hashes_per_bucket, seed=seed)
    step = MinhashDedupSignature(tempfile.gettempdir(), config)
    step.get_shingles("the first call loads the words of the language")
    return step


def _datatrove(step: Any, texts: list[str]) -> list[list[list[int]] | None]:
    """As its `run` does, without writing; a text of fewer than five words has no signature."""
    shingles = (step.get_shingles(text) for text in texts)
    return [step.get_signature(found) if found.size else None for found in shingles]


def _recall(texts: list[str]) -> None:
    """Compare pairs that share a band with those whose sets of shingles are alike, over all pairs.

    One truth for all: sets of five lower-case words. Whether a pair is found is a matter of luck, so several seeds
    are averaged. (datasketch is left out: the tests show that on the same shingles our signatures equal its own.)
    """
    sets = [set(_shingles(text, _WORD["English"])) for text in texts]
    true = _alike(sets)
    print(f"{len(texts):,} news stories: {len(true):,} pairs at a Jaccard similarity of at least {_THRESHOLD}")
    for num_buckets, hashes_per_bucket in _RECALL_SHAPES:
        print(f"  {num_buckets} x {hashes_per_bucket}, mean of {len(_SEEDS)} seeds (worst)")
        for name, signature_of in _signers(texts, num_buckets, hashes_per_bucket).items():
            found = [_pairs(signature_of(seed), num_buckets) for seed in _SEEDS]
            recall = [len(pairs & true) / len(true) for pairs in found]
            precision = [len(pairs & true) / len(pairs) for pairs in found]
            print(
                f"  {name:12} recall {np.mean(recall):.4f} ({min(recall):.4f})"
                f"  precision {np.mean(precision):.4f} ({min(precision):.4f})"
            )


def _signers(texts: list[str], num_buckets: int, hashes_per_bucket: int) -> dict[str, Callable[[int], np.ndarray]]:
    """Make what computes all signatures from a seed, by contender."""
    num_perm = num_buckets * hashes_per_bucket
    hashes, offsets = shingle_hashes(*word_hashes(Index(texts)), _SHINGLE)
    found: dict[str, Callable[[int], np.ndarray]] = {
        "qwen-core": lambda seed: signatures(hashes, offsets, num_perm, seed)
    }
    if importlib.util.find_spec("rensa"):
        found["rensa"] = lambda seed: np.array(_rensa(texts, _WORD["English"], num_perm, seed).to_rows())
    if importlib.util.find_spec("datatrove"):
        step = _datatrove_step(num_buckets, hashes_per_bucket)
        shingles = [step.get_shingles(text) for text in texts]

        def datatrove(seed: int) -> np.ndarray:
            signer = _datatrove_step(num_buckets, hashes_per_bucket, seed)
            made = np.tile(-1 - np.arange(len(texts))[:, None], num_perm)  # without shingles a text meets no other
            for row, one in enumerate(shingles):
                if one.size:
                    made[row] = np.ravel(signer.get_signature(one))
            return made

        found["datatrove"] = datatrove
    return found


def _alike(sets: list[set[str]]) -> Pairs:
    """Find all pairs at or above the threshold, exactly: common shingles are a product of sparse matrices."""
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(shingle, len(numbers)) for one in sets for shingle in one]
    sizes = np.array([len(one) for one in sets])
    starts = np.concatenate(([0], sizes.cumsum()))
    table = csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(sets), len(numbers)))
    common = triu(table @ table.T, k=1).tocoo()
    alike = common.data >= _THRESHOLD * (sizes[common.row] + sizes[common.col] - common.data)
    return set(zip(common.row[alike].tolist(), common.col[alike].tolist(), strict=True))


def _pairs(signature: np.ndarray, num_buckets: int) -> Pairs:
    """List all pairs of documents that share a band."""
    found: Pairs = set()
    for band in np.split(signature, num_buckets, axis=1):
        buckets = collections.defaultdict(list)
        for row, values in enumerate(np.ascontiguousarray(band)):
            buckets[values.tobytes()].append(row)
        for members in buckets.values():
            found.update(itertools.combinations(members, 2))
    return found
