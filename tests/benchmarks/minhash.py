"""MinHash signatures of the bundled documents: whole batches against datasketch, one document at a time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from datasketch import MinHash

import qwen_core.demo
from qwen_core.data.minhash import shingle_hashes, signatures
from qwen_core.data.words import split_words
from tests.benchmarks.measure import compare

_NUM_PERM, _SHINGLE, _REPEATS = 112, 5, 10


def main() -> None:
    """Time shingles and signatures together; the results are the same."""
    folder = Path(qwen_core.demo.__file__).parent
    lines = [line for name in ("en", "zh") for line in (folder / f"documents_{name}.jsonl").open(encoding="utf-8")]
    texts = [json.loads(line)["text"] for line in lines] * _REPEATS
    hashes, offsets = shingle_hashes(split_words(texts), _SHINGLE)

    def ours() -> np.ndarray:
        return signatures(*shingle_hashes(split_words(texts), _SHINGLE), _NUM_PERM, seed=1)

    def loop_over_texts() -> list[MinHash]:
        """As datasketch's documentation has it: shingles as strings, hashed one by one."""
        made = []
        for text in texts:
            words = text.split() if text.isascii() else list(text)
            sketch = MinHash(num_perm=_NUM_PERM, seed=1)
            sketch.update_batch(" ".join(words[i : i + _SHINGLE]).encode() for i in range(len(words) - _SHINGLE + 1))
            made.append(sketch)
        return made

    def same_hashes() -> list[MinHash]:
        """Only the permutations: our hashes are handed in ready."""
        made = []
        for start, end in itertools.pairwise(offsets):
            sketch = MinHash(num_perm=_NUM_PERM, seed=1, scheme="affine32", hashfunc=int)
            sketch.update_batch(hashes[start:end].tolist())
            made.append(sketch)
        return made

    assert (ours()[7] == same_hashes()[7].hashvalues).all()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    compare(
        f"MinHash, {_NUM_PERM} permutations of {_SHINGLE}-word shingles, {megabytes:.1f} MB of documents",
        "MB/s",
        megabytes,
        ours,
        {"datasketch, from text": loop_over_texts, "datasketch, from our hashes": same_hashes},
    )
