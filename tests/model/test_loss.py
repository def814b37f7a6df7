"""The chunked loss equals the plain one, forward and backward, and never holds all logits."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from qwen_core.model import IGNORE, CausalLM, ModelConfig, initialise
from qwen_core.model.loss import LMHead, counted_rows, linear_cross_entropy, token_losses


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


def _inputs(rows=33, width=16, words=101, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, width, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(words, width, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, words, (rows,), generator=generator)


def _grads(function, hidden, weight, targets, upstream):
    losses = function(hidden, weight, targets)
    return losses, *torch.autograd.grad(losses, (hidden, weight), upstream)


def _plain(hidden, weight, targets):
    return F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")


@pytest.mark.parametrize("chunk_bytes", [4 * 101 * 7, 1 << 27], ids=["chunks", "whole"])
@pytest.mark.parametrize("upstream", ["same", "differing"])
@pytest.mark.parametrize("has_row_weights", [False, True])
def test_loss_and_gradients_equal_the_plain_ones(monkeypatch, chunk_bytes, upstream, has_row_weights):
    monkeypatch.setattr("qwen_core.model.loss.CHUNK_BYTES", {"cpu": chunk_bytes})
    inputs = _inputs()
    weights = torch.full((33,), 0.3) if upstream == "same" else torch.linspace(-1, 1, 33)
    ours = _grads(lambda *args: linear_cross_entropy(*args, has_row_weights), *inputs, weights)
    for one, other in zip(ours, _grads(_plain, *inputs, weights), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_bf16_weights_have_their_softmax_in_fp32_and_their_gradient_summed_in_fp32(monkeypatch):
    monkeypatch.setattr("qwen_core.model.loss.CHUNK_BYTES", {"cpu": 4 * 101 * 2})  # 17 chunks
    inputs = _inputs(dtype=torch.bfloat16)
    losses, grad_hidden, grad_weight = _grads(linear_cross_entropy, *inputs, torch.ones(33))
    exact = _grads(_plain, *(x.detach().float().requires_grad_() for x in inputs[:2]), inputs[2], torch.ones(33))
    assert losses.dtype == torch.float32 and grad_weight.dtype == torch.bfloat16
    assert torch.allclose(losses, exact[0], rtol=0.02)
    assert torch.allclose(grad_hidden.float(), exact[1], atol=0.05)
    assert torch.allclose(grad_weight.float(), exact[2], atol=0.05)


def test_a_loss_may_be_taken_without_a_gradient():
    hidden, weight, targets = _inputs()
    with torch.no_grad():
        losses = linear_cross_entropy(hidden, weight, targets)
    assert not losses.requires_grad and torch.allclose(losses, _plain(hidden, weight, targets), atol=1e-5)


@pytest.mark.parametrize("has_row_weights", [False, True])
def test_a_frozen_head_passes_the_gradient_of_any_weighting_on(has_row_weights):
    hidden, weight, targets = _inputs()
    weights = torch.linspace(-1, 1, 33)
    (linear_cross_entropy(hidden, weight.detach(), targets, has_row_weights) * weights).sum().backward()
    assert torch.allclose(hidden.grad, _grads(_plain, *_inputs(), weights)[1], atol=1e-5)


def test_a_batch_without_a_label_still_reaches_every_weight():
    model = CausalLM(ModelConfig(97, 32, 48, 1, 4, 2))
    initialise(model, seed=1)
    ids = torch.ones(2, 8, dtype=torch.long)
    losses = model(ids, labels=torch.full_like(ids, IGNORE))
    losses.sum().backward()
    assert (losses == 0).all()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_a_label_is_predicted_by_the_position_before_it():
    rows, targets = counted_rows(torch.tensor([[9, IGNORE, 5, 6], [7, 8, IGNORE, IGNORE]]))
    assert rows.tolist() == [1, 2, 4] and targets.tolist() == [5, 6, 8]
    losses = token_losses(torch.zeros(2, 4, 3), torch.tensor([[9, IGNORE, 5, 6], [7, 8, IGNORE, IGNORE]]),
                          lambda hidden, targets: targets.float())  # fmt: skip
    assert losses.tolist() == [[0, 0, 5, 6], [0, 8, 0, 0]]


def test_a_vocabulary_of_151936_words_never_has_all_its_logits_in_memory(monkeypatch):
    """Worked by hand: 64 rows of 151,936 words in fp32 take 38.9 MB; a chunk of 8 MiB holds 13 of them, 7.9 MB."""
    monkeypatch.setattr("qwen_core.model.loss.CHUNK_BYTES", {"cpu": 1 << 23})
    words, rows, width = 151_936, 64, 4
    head = LMHead(width, words)
    hidden = torch.randn(rows, width, requires_grad=True)
    targets = torch.randint(0, words, (rows,), generator=torch.Generator().manual_seed(1))
    sizes = {}
    for name, function in (
        ("ours", lambda: head(hidden, targets)),
        ("plain", lambda: _plain(hidden, head.weight, targets)),
    ):
        with LargestTensor() as largest:
            function().sum().backward()
        sizes[name] = largest.nbytes
    assert sizes["plain"] == 4 * words * rows
    assert sizes["ours"] <= 1 << 23


def test_rows_that_no_label_counts_for_never_meet_the_head():
    head = LMHead(8, 50)
    labels = torch.full((1, 100), IGNORE)
    labels[0, 90:] = 3
    seen = []
    head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    token_losses(torch.randn(1, 100, 8), labels, head)
    assert seen == [(10, 8)]
