"""Packing: nothing lost, bounds right, order a function of seed and step alone."""

import numpy as np
import pyarrow as pa
import pytest

from qwen_core.data.pack import pack, spread
from qwen_core.data.packed import PackedSequences, epoch_order, step_indices

BYTES = np.array([0, 1, 2, 3, 1, 1, 1, 1, 1, 1])


@pytest.fixture
def sequences(tmp_path):
    table = pack([[1, 2, 3], [4], [5, 6, 7, 8, 9]], max_seq_len=5, separator=0, token_bytes=BYTES)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return PackedSequences([str(tmp_path / "a.arrow")])


def test_documents_lie_end_to_end_with_separators_and_padding(sequences):
    batch = sequences.batch([0, 1, 2])
    assert batch.input_ids.tolist() == [[1, 2, 3, 0, 4], [0, 5, 6, 7, 8], [9, 0, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert batch.num_tokens.tolist() == [5, 5, 2]


def test_bytes_count_predicted_tokens_only(sequences):
    # sequence 0 predicts 2, 3 and the separator: 2 + 3 + 0; sequence 1 predicts 6, 7, 8; sequence 2 a separator
    assert sequences.table["num_bytes"].to_pylist() == [5, 3, 0]


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
