"""MinHash equals datasketch, planted duplicates are found, the best of each cluster stays."""

import itertools

import numpy as np
import pytest
from datasketch import MinHash

from qwen_core.data.components import cluster, keep_best
from qwen_core.data.minhash import band_hashes, shingle_hashes, signatures
from qwen_core.data.words import split_words

NOUNS = [
    "river",
    "stone",
    "cloud",
    "engine",
    "letter",
    "market",
    "winter",
    "garden",
    "signal",
    "theory",
    "bridge",
    "lemon",
]


def _text(seed, words=120):
    return " ".join(np.random.default_rng(seed).choice(NOUNS, words))


def _bands(texts):
    hashes, offsets = shingle_hashes(split_words(texts), 5)
    return band_hashes(signatures(hashes, offsets, 112, seed=1), 14)


def test_signature_equals_datasketch_on_the_same_hashes():
    texts = [_text(0), _text(1), "two words", "", "河水流向大海，慢慢沉下细沙。"]
    hashes, offsets = shingle_hashes(split_words(texts), 5)
    ours = signatures(hashes, offsets, 112, seed=7)
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        reference = MinHash(num_perm=112, seed=7, hashfunc=int)
        reference.update_batch(hashes[start:end].tolist())
        assert (ours[row] == reference.hashvalues).all(), row


def test_shingles_do_not_depend_on_the_batch():
    alone, _ = shingle_hashes(split_words(["a b"]), 5)
    hashes, offsets = shingle_hashes(split_words(["a b", "c d e f g h"]), 5)
    assert offsets.tolist() == [0, 1, 3] and hashes[0] == alone[0]


def test_estimated_similarity_is_close_to_the_true_one():
    first = [f"w{i}" for i in range(1000)]
    second = first[:800] + [f"v{i}" for i in range(200)]
    hashes, offsets = shingle_hashes(split_words([" ".join(first), " ".join(second)]), 1)
    left, right = signatures(hashes, offsets, 1024, seed=1)
    assert (left == right).mean() == pytest.approx(800 / 1200, abs=0.06)


def test_planted_near_duplicates_are_one_cluster_and_others_stay_apart():
    base = _text(3, 400)
    texts = [base, base + " and one more sentence", _text(4, 400), base.replace("river", "river", 1), _text(5, 400)]
    found = cluster(_bands(texts))
    assert found[0] == found[1] == found[3]
    assert len({int(found[0]), int(found[2]), int(found[4])}) == 3


def test_long_chain_becomes_one_cluster():
    keys = np.stack((np.arange(10_000) // 2, (np.arange(10_000) + 1) // 2), 1).astype(np.uint64)
    assert len(set(cluster(keys).tolist())) == 1


def test_best_quality_then_longest_then_smallest_id_stays():
    clusters = np.array([0, 0, 0, 1, 1, 2])
    keep = keep_best(
        clusters, np.array([0.1, 0.9, 0.9, 0.5, 0.5, 0.0]), np.array([9, 5, 7, 3, 3, 1]), np.array(list("fedcba"))
    )
    assert keep.tolist() == [False, False, True, False, True, True]
