"""Experts over several workers equal one process; workers whose tokens route differently do not wait for each other."""

import pytest
import torch

from qwen_core.errors import RecipeError
from qwen_core.parallel.expert import share_experts
from tests.parallel import expert_runs, tiny
from tests.parallel.expert_runs import SPARSE, balance, balanced_block, resume_experts, train_experts, train_lopsided
from tests.parallel.spread import spread
from tests.parallel.tiny import assert_equal, tiny_config, tiny_model, train_alone


@pytest.fixture(scope="module")
def alone():
    return train_alone(tiny_config(**SPARSE))


@pytest.mark.slow
def test_two_workers_share_out_the_experts_as_one_process_computes_them(alone):
    """Each of ZeRO 1, 2, 3; the gathered weights of experts are whole again on the first worker."""
    plans = [(2, 1), (2, 2), (2, 3)]
    by_worker = spread(train_experts, 2, plans)
    for number in range(len(plans)):
        assert_equal([outcomes[number] for outcomes in by_worker], alone)


@pytest.mark.slow
def test_two_groups_of_two_keep_equal_experts_equal(alone):
    plans = [(2, 2), (2, 3)]
    by_worker = spread(train_experts, 4, plans)
    for number in range(len(plans)):
        assert_equal([outcomes[number] for outcomes in by_worker], alone)


@pytest.mark.slow
def test_a_resumed_run_with_shared_out_experts_goes_on_to_the_last_bit(tmp_path):
    """In bf16, where stage 1 has an optimiser of its own."""
    by_worker = spread(resume_experts, 2, [(2, 1), (2, 2), (2, 3)], str(tmp_path))
    for worker in by_worker:
        for straight, resumed in worker:
            assert straight == resumed


@pytest.mark.slow
def test_under_zero_3_one_worker_may_send_all_tokens_to_the_same_experts(monkeypatch):
    """The even batches repeat one token: all 64 rows of the first worker choose the same two experts."""
    monkeypatch.setattr(tiny, "make_batches", expert_runs.lopsided_batches)
    expected = train_alone(tiny_config(**SPARSE))
    by_worker = spread(train_lopsided, 2, timeout_seconds=300)
    assert_equal([outcome for outcome, _ in by_worker], expected)
    for first, second in zip(by_worker[0][1], by_worker[1][1], strict=True):
        assert sorted(first) == [0, 0, 64, 64]
        assert sum(count > 0 for count in second) == 4


@pytest.mark.slow
def test_global_batch_loss_of_two_workers_has_the_gradient_of_one_process():
    rows = [torch.randn(1, 20, 32), torch.randn(1, 20, 32) + 1.0]
    (gradient, figures), (other, others) = spread(balance, 2, rows)
    block, losses = balanced_block()
    (block(torch.cat(rows)).sum() / 2).backward()  # the losses are means over tokens, the rest a sum
    assert torch.allclose(gradient, block.gate.weight.grad, rtol=1e-5, atol=1e-5)
    assert gradient.equal(other)
    assert figures == others
    expected = losses.metrics()
    for name in ("max_load", "min_load", "entropy", "z_loss"):
        assert figures[f"router/layer_00/{name}"] == pytest.approx(expected[f"router/layer_00/{name}"], rel=1e-5)


@pytest.mark.parametrize(
    ("size", "workers", "words"),
    [
        (3, 4, "parallel.expert (3) must divide the number of workers (4)"),
        (8, 8, "parallel.expert (8) must divide the number of experts (4)"),
    ],
)
def test_what_does_not_divide_is_refused(size, workers, words, monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: workers)
    with pytest.raises(RecipeError) as caught:
        share_experts(tiny_model(tiny_config(**SPARSE)), size)
    assert words in str(caught.value)


def test_a_dense_model_has_no_experts_to_share_out(monkeypatch):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(RecipeError, match="the model has no experts"):
        share_experts(tiny_model(tiny_config()), 2)
