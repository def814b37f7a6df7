"""Objectives: worked by hand, and independent of how a batch is cut."""

import pyarrow as pa
import pytest
import torch

from qwen_core.data.packed import PackedBatch
from qwen_core.model import IGNORE
from qwen_core.parallel.shard import Shard
from qwen_core.train.dpo import preference_accuracy
from qwen_core.train.pretrain import packed_batch
from qwen_core.train.sft import SftTask
from tests.train.tables import OwnId, write


def test_preference_is_judged_per_token_so_that_length_decides_nothing():
    logprobs = torch.tensor([[-10.0, -6.0], [-10.0, -6.0]])
    assert preference_accuracy(logprobs, torch.tensor([[10.0, 3.0], [2.0, 3.0]])) == 0.5


def test_only_the_assistants_tokens_count(tmp_path):
    rows = [
        {"input_ids": [5, 6, 7], "labels_mask": [False, True, True]},
        {"input_ids": [5, 2], "labels_mask": [False, True]},
    ]
    path = write(tmp_path / "a.arrow", pa.Table.from_pylist(rows))
    task = SftTask(path, path, 2)
    batch = task.batch([0, 1])
    assert batch.count == 3 and batch.tokens == 5
    assert float(task.objective(OwnId().measure(batch), batch).loss) == 6 + 7 + 2
    assert task.validate(OwnId())["loss"] == pytest.approx(15 / 3)


def test_first_tokens_of_documents_and_padding_are_not_predicted():
    import numpy as np

    batch = PackedBatch(np.arange(6)[None], np.array([[0, 0, 1, 1, 1, 1]]), np.array([5]))
    assert packed_batch(batch).labels.tolist() == [[IGNORE, 1, IGNORE, 3, 4, IGNORE]]


def test_shards_fill_up_with_weight_zero():
    batches = Shard().batches(5, 2)
    counted = [i for indices, weights in batches for i, w in zip(indices, weights, strict=True) if w]
    assert counted == [0, 1, 2, 3, 4] and all(len(indices) == 2 for indices, _ in batches)


def test_padding_of_packed_sequences_is_a_segment_of_its_own():
    batch = PackedBatch(
        torch.arange(6).numpy()[None], torch.tensor([[0, 0, 1, 1, 1, 1]]).numpy(), torch.tensor([5]).numpy()
    )
    assert packed_batch(batch).segment_ids.tolist() == [[0, 0, 1, 1, 1, -1]]
