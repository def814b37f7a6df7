"""Packing: nothing lost, bounds right, order a function of seed and step alone."""

import numpy as np
import pyarrow as pa
import pytest

from qwen_core.data.bestfit import best_fit, cut
from qwen_core.data.pack import pack, spread
from qwen_core.data.packed import PackedSequences, epoch_order, step_indices

BYTES = np.array([0, 1, 2, 3, 1, 1, 1, 1, 1, 1])
DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]


def laid(documents, **options):
    closed = [[*ids, 0] for ids in documents]
    flat = np.array([token for ids in closed for token in ids], dtype=np.uint32)
    lengths = np.array([len(ids) for ids in closed], dtype=np.int64)
    options = {"max_seq_len": 5, "separator": 0, "token_bytes": BYTES} | options
    return pack(flat, lengths, **options)


def opened(table, folder):
    with pa.OSFile(str(folder / "a.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return PackedSequences([str(folder / "a.arrow")])


def best_fit_one_by_one(pieces, max_seq_len):
    """Best fit as the paper words it, one piece at a time: the reference."""
    room = []
    for piece in sorted(range(len(pieces)), key=lambda index: -pieces[index]):
        fitting = [number for number, left in enumerate(room) if left >= pieces[piece]]
        number = min(fitting, key=lambda number: room[number], default=None)
        if number is None:
            number = len(room)
            room.append(max_seq_len)
        room[number] -= pieces[piece]
    return sorted(room)


def test_documents_lie_end_to_end_with_separators_and_padding(tmp_path):
    batch = opened(laid(DOCUMENTS).table, tmp_path).batch([0, 1, 2])
    assert batch.input_ids.tolist() == [[1, 2, 3, 0, 4], [0, 5, 6, 7, 8], [9, 0, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert batch.num_tokens.tolist() == [5, 5, 2]


def test_bytes_count_predicted_tokens_only():
    # sequence 0 predicts 2, 3 and the separator: 2 + 3 + 0; sequence 1 predicts 6, 7, 8; sequence 2 a separator
    assert laid(DOCUMENTS).table["num_bytes"].to_pylist() == [5, 3, 0]


def test_best_fit_keeps_documents_whole_and_pads_behind_them(tmp_path):
    """Tokens with separators: 4, 2, 6 into rows of 5. 6 is cut to 5 + 1. Longest first: 5 fills a row; 4 a second,
    with room for one; 2 a third; the 1 goes into the fullest row that has room, the second."""
    packed = laid(DOCUMENTS, method="best_fit")
    batch = opened(packed.table, tmp_path).batch([0, 1, 2])
    assert batch.input_ids.tolist() == [[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert batch.num_tokens.tolist() == [5, 2, 5]
    assert packed.table["num_bytes"].to_pylist() == [5, 0, 4]  # 2, 3; a separator; 6, 7, 8, 9
    assert (packed.documents, packed.cut_documents) == (3, 1)


def test_concatenation_counts_the_documents_that_it_cuts():
    packed = laid(DOCUMENTS)  # the second and the third go over a bound
    assert (packed.documents, packed.cut_documents) == (3, 2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_seq_len", [7, 64])
def test_best_fit_equals_the_search_one_piece_at_a_time(seed, max_seq_len):
    lengths = np.random.default_rng(seed).integers(1, max_seq_len + 1, size=300)
    ours = best_fit(lengths, max_seq_len)
    fill = np.bincount(ours, weights=lengths).astype(int)
    assert sorted((max_seq_len - fill).tolist()) == best_fit_one_by_one(lengths.tolist(), max_seq_len)


def test_sequences_are_numbered_by_their_first_piece():
    assert best_fit(np.array([1, 4, 4, 1, 5]), 5).tolist() == [0, 0, 1, 1, 2]
    assert best_fit(np.zeros(0, np.int64), 5).tolist() == []


def test_long_documents_are_cut_to_full_pieces_first():
    pieces, document = cut(np.array([3, 10, 11]), 5)
    assert pieces.tolist() == [3, 5, 5, 5, 5, 1] and document.tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("method", ["concatenate", "best_fit"])
def test_every_token_of_every_document_is_found_again(tmp_path, method):
    random = np.random.default_rng(3)
    documents = [random.integers(1, 10, size=size).tolist() for size in random.integers(0, 40, size=200)]
    packed = laid(documents, method=method, max_seq_len=16, order=np.r_[np.arange(200), 5, 5])
    sequences = opened(packed.table, tmp_path)
    batch = sequences.batch(np.arange(len(sequences)))
    kept = np.arange(16) < batch.num_tokens[:, None]
    assert (batch.input_ids[~kept] == 0).all()
    assert kept.sum() == sum(len(ids) + 1 for ids in [*documents, documents[5], documents[5]])
    pieces = {}
    for row, segments, count in zip(batch.input_ids, batch.segment_ids, batch.num_tokens, strict=True):
        for segment in range(segments[:count].max() + 1):
            piece = tuple(row[:count][segments[:count] == segment].tolist())
            pieces[piece] = pieces.get(piece, 0) + 1
    whole = [(*ids, 0) for ids in documents if len(ids) < 16]
    if method == "best_fit":
        assert all(pieces[ids] >= whole.count(ids) for ids in whole)
        assert packed.cut_documents == sum(len(ids) >= 16 for ids in [*documents, documents[5], documents[5]])
    assert sum(len(piece) * count for piece, count in pieces.items()) == kept.sum()


@pytest.mark.parametrize("method", ["concatenate", "best_fit"])
def test_nothing_gives_no_rows(method):
    assert laid([], method=method).table.num_rows == 0


def test_every_epoch_visits_every_sequence_once_whatever_the_batch():
    visited = np.concatenate([step_indices(7, step, 6, 10) for step in range(5)])
    assert sorted(visited[:10]) == sorted(visited[10:20]) == sorted(visited[20:]) == list(range(10))
    assert (visited[:10] == epoch_order(7, 0, 10)).all() and (visited[10:20] != visited[:10]).any()


def test_a_batch_larger_than_the_data_goes_round():
    counts = np.bincount(step_indices(1, 0, 7, 3), minlength=3)
    assert counts.sum() == 7 and set(counts.tolist()) == {2, 3}


def test_small_groups_are_served_before_large_ones_take_a_second():
    groups = {("en", "a"): 50, ("zh", "a"): 2, ("de", "b"): 1}
    assert spread(groups, 4) == {("en", "a"): 2, ("zh", "a"): 1, ("de", "b"): 1}
    assert spread(groups, 2) == {("en", "a"): 1, ("zh", "a"): 1, ("de", "b"): 0}
    assert sum(spread(groups, 100).values()) == 53
