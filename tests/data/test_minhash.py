"""MinHash equals datasketch, planted duplicates are found, a text's sketch depends on nothing but the text."""

import itertools
import tracemalloc

import numpy as np
import pytest
from datasketch import MinHash

import qwen_core.data.index
from qwen_core.data.components import chain_edges, components
from qwen_core.data.index import BATCH_CHARS, Index
from qwen_core.data.minhash import band_hashes, shingle_hashes, signatures, sketch, word_hashes

NOUNS = ("river", "stone", "cloud", "engine", "letter", "market", "winter", "garden", "signal", "theory", "bridge")
SIGNS = "河水流向大海慢沉下细沙石山风云雨雪花草木鸟虫鱼人心手足口目耳舌"


def _text(seed, words=120):
    return " ".join(np.random.default_rng(seed).choice(NOUNS, words))


def _chinese(seed, characters=200):
    return "".join(np.random.default_rng(seed).choice(list(SIGNS), characters))


def _clusters(texts):
    """The smallest number in the cluster of each text."""
    found = sketch(texts, 5, 14, 8, seed=1)
    numbers = np.repeat(np.arange(len(texts)), 14)
    nodes, smallest = components(*chain_edges(found.bands.reshape(-1), numbers))
    result = np.arange(len(texts))
    result[nodes] = smallest
    return result.tolist()


@pytest.mark.parametrize("num_perm", [112, 256, 7])
def test_signature_equals_datasketch_on_the_same_hashes(num_perm):
    texts = ["", _text(0), _text(1), "two words", "", "河水流向大海，慢慢沉下细沙。", _text(2, 30_000), _text(3, 9)]
    hashes, offsets = shingle_hashes(*word_hashes(Index(texts)), 5)
    ours = signatures(hashes, offsets, num_perm, seed=7)
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        reference = MinHash(num_perm=num_perm, seed=7, scheme="affine32", hashfunc=int)
        reference.update_batch(hashes[start:end].tolist())
        assert (ours[row] == reference.hashvalues).all(), row


def test_shingles_do_not_depend_on_the_batch_nor_on_case_nor_on_signs():
    alone, _ = shingle_hashes(*word_hashes(Index(["a b"])), 5)
    hashes, offsets = shingle_hashes(*word_hashes(Index(["", "A, b!", "c d e f g h", "x c d e f g"])), 5)
    assert offsets.tolist() == [0, 0, 1, 3, 5] and hashes[0] == alone[0] and hashes[1] == hashes[4]


def test_a_chinese_character_is_a_word_of_a_shingle_in_a_mixed_text_too():
    hashes, offsets = shingle_hashes(*word_hashes(Index(["模型 GPT 的训练", "GPT 的训练 完"])), 3)
    assert np.diff(offsets).tolist() == [4, 3]  # 模 型 GPT 的 训 练 and GPT 的 训 练 完
    assert hashes[2:4].tolist() == hashes[4:6].tolist()


def test_estimated_similarity_is_close_to_the_true_one():
    first = [f"w{i}" for i in range(1000)]
    second = first[:800] + [f"v{i}" for i in range(200)]
    hashes, offsets = shingle_hashes(*word_hashes(Index([" ".join(first), " ".join(second)])), 1)
    left, right = signatures(hashes, offsets, 1024, seed=1)
    assert (left == right).mean() == pytest.approx(800 / 1200, abs=0.06)


def test_planted_near_duplicates_are_found_and_others_stay_apart():
    english, chinese = _text(3, 400), _chinese(4, 400)
    texts = [english, english + " and one more sentence", _text(4, 400), english.upper(), chinese, chinese + "完了"]
    assert _clusters([*texts, _chinese(9, 400)]) == [0, 0, 2, 0, 4, 4, 6]


def test_exact_hash_puts_case_and_white_space_aside_but_not_word_bounds_nor_signs():
    same = ["One two,\tthree.\n", "one TWO, three.", " one\n\n two , three ."]
    others = ["onetwo, three.", "one two three.", "one two, three", "two one, three.", "one two, three..", "", "，"]
    found = sketch(same + others, 5, 2, 2, seed=1).exact
    assert len(set(found[:3].tolist())) == 1
    assert len(set(found.tolist())) == 1 + len(others)


def test_texts_without_a_word_meet_only_their_equals():
    found = sketch(["...", "...", "?!", "", " \n"], 5, 3, 2, seed=1)
    assert found.words.tolist() == [0] * 5
    bands = [tuple(row) for row in found.bands.tolist()]
    assert bands[0] == bands[1] and bands[3] == bands[4] and len(set(bands)) == 3
    assert len({band for row in bands for band in row}) == 9


def test_bands_of_two_places_never_meet():
    assert len(np.unique(band_hashes(np.zeros((1, 112), np.uint32), 14))) == 14


@pytest.mark.parametrize(
    "text", [_text(1, 4000), _chinese(1, 9000), "x" * 9000, " \n" * 5000, "word " + " " * 9000 + "end"]
)
def test_a_long_text_in_pieces_has_the_sketch_of_the_whole(text, monkeypatch):
    texts = [_text(5), text, "short"]
    whole = sketch(texts, 5, 4, 4, seed=3)
    for module in ("qwen_core.data.index", "qwen_core.data.minhash"):
        monkeypatch.setattr(f"{module}.BATCH_CHARS", 700)
    monkeypatch.setattr(qwen_core.data.index, "_LONGEST_WORD", 100)
    cut = sketch(texts, 5, 4, 4, seed=3)
    if "x" * 200 not in text:  # a word that is longer than all bounds is the one thing that falls apart
        assert (cut.bands == whole.bands).all() and (cut.exact == whole.exact).all()
        assert (cut.words == whole.words).all()


def test_one_long_document_takes_the_memory_of_a_piece():
    def peak(text):
        tracemalloc.start()
        sketch([text], 5, 14, 8, seed=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    piece = _text(1, BATCH_CHARS // 7)
    peak(piece)  # tables of the index are made once
    assert peak(piece * 20) < 1.3 * peak(piece * 2)


def test_sketches_of_a_first_and_a_second_batch_are_those_of_one_run():
    texts = [_text(seed, 20 + 30 * seed) for seed in range(30)] + [_chinese(seed) for seed in range(9)] + ["", "!"]
    together = sketch(texts, 5, 14, 8, seed=1)
    for cut in (1, 13, 39):
        parts = [sketch(part, 5, 14, 8, seed=1) for part in (texts[:cut], texts[cut:])]
        for name in ("bands", "exact", "words"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert (joined == getattr(together, name)).all(), name


def test_lone_surrogates_and_nul_bytes_are_characters_like_others():
    found = sketch(["a\ud800b c", "a\x00b c", "\ud800"], 5, 2, 2, seed=1)
    assert len(set(found.exact.tolist())) == 3
