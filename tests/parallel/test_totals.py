"""Sums over a step's micro-batches."""

import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.shard import ALONE
from qwen_core.parallel.totals import Totals
from tests.parallel.tiny import make_batches

CPU = torch.device("cpu")


def test_losses_and_figures_are_divided_by_the_count_of_all_micro_batches():
    """Sums 3 + 5 and 1 + 2 over 4 + 6 items."""
    ids = torch.zeros(1, 8, dtype=torch.int64)
    totals = Totals([Batch(ids, ids, None, 4.0, 8), Batch(ids, ids, None, 6.0, 7)], ALONE, CPU)
    totals.add(Objective(torch.tensor(3.0, requires_grad=True), {"right": torch.tensor(1)}))
    totals.add(Objective(torch.tensor(5.0), {"right": torch.tensor(2)}))
    assert (totals.count, totals.tokens) == (10.0, 15)
    assert totals.means() == {"loss": 0.8, "right": 0.3}


def test_step_without_a_label_that_counts_is_refused():
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with pytest.raises(ArtifactError, match=r"a step's 16 tokens hold no label that counts \(count 0\)"):
        Totals([Batch(ids, ids, None, 0.0, 8)] * 2, ALONE, CPU)


def test_batch_is_placed_with_all_its_tensors():
    batch = make_batches(0)[0]
    placed = batch.to(torch.device("meta"))
    tensors = [placed.input_ids, placed.labels, placed.segment_ids, *placed.extras.values()]
    assert all(tensor.is_meta for tensor in tensors)
    assert (placed.count, placed.tokens, list(placed.extras)) == (batch.count, batch.tokens, ["weight"])
