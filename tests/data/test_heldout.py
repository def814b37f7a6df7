"""The held-out set as texts: chosen, told apart, recognised in later data."""

import numpy as np
import pyarrow as pa

from qwen_core.data.heldout import SCHEMA, HeldOut, Likeness, digest_of, sizes_of

SETTINGS = {"shingle_words": 5, "num_buckets": 20, "hashes_per_bucket": 8, "seed": 1}


def gathered(lengths, limit=1000, group=("en", "web")):
    """Documents whose text is a character for each token, and whose draws rise."""
    found = HeldOut(limit)
    ids, texts = [f"{number:016x}" for number in range(len(lengths))], ["x" * (length - 1) for length in lengths]
    tokens = np.arange(sum(lengths), dtype=np.uint32)
    found.add(group, np.arange(len(lengths), dtype=np.uint64), tokens, np.array(lengths), ids, texts)
    return found


def cut(text, tokens, room):
    return text[:room]


def test_documents_fill_the_sequences_and_the_last_one_is_cut():
    """Two sequences of 10: 8 tokens whole, 9 whole; of the next there is room for 2 and the separator."""
    table = gathered([8, 9, 30, 5]).chosen(2, 10, cut)
    assert table["chars"].to_pylist() == [7, 8, 2] and [len(text) for text in table["text"].to_pylist()] == [7, 8, 29]


def test_groups_share_the_sequences():
    found = gathered([50] * 4)
    found.merge(gathered([5], group=("zh", "web")))
    table = found.chosen(3, 10, cut)
    assert set(zip(table["language"].to_pylist(), table["chars"].to_pylist(), strict=True)) == {("en", 19), ("zh", 4)}


def test_digest_follows_the_texts_and_what_is_measured_of_them():
    first, same, other = (gathered([30, 30]).chosen(count, 10, cut) for count in (2, 2, 3))
    assert digest_of(first) == digest_of(same) != digest_of(other)
    assert sizes_of(first) == [{"language": "en", "source": "web", "documents": 1, "bytes": 19}]


def test_held_out_documents_and_near_duplicates_are_recognised():
    words = [f"word{number}" for number in range(80)]
    text = " ".join(words)
    row = {"id": "a" * 16, "text": text, "language": "en", "source": "web", "chars": 10}
    likeness = Likeness(pa.Table.from_pylist([row], schema=SCHEMA), SETTINGS)
    near = " ".join([*words[:-1], "other"])
    far = " ".join(reversed(words))
    ids = ["a" * 16, "b" * 16, "c" * 16, "d" * 16]
    assert likeness.is_like(ids, ["changed wholly", near, far, None]).tolist() == [True, True, False, False]
    nothing = Likeness(SCHEMA.empty_table(), SETTINGS)
    assert not nothing.is_like(ids, [text] * 4).any()
