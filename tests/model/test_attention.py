"""Attention over packed documents: every path equals a plain mask; layers compile without a break."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.model.decoder import shared_inputs
from qwen_core.model.documents import CAUSAL, Structure, attend, document_mask, document_starts, document_structure

SEGMENTS = torch.tensor([[0] * 7 + [1] * 1 + [2] * 8, [0] * 12 + [-1] * 4])


def _inputs(device="cpu", dtype=torch.float32, heads=4, key_heads=2, head_dim=16):
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 16, count, head_dim) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


def _plain(query, key, value, segments):
    """Softmax of the whole square, in fp64, with the mask written out."""
    group = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(group, 2) for x in (key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) / query.shape[-1] ** 0.5
    index = torch.arange(query.shape[1], device=query.device)
    seen = (segments[:, :, None] == segments[:, None, :]) & (index[:, None] >= index[None, :])
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, value.double())


def _check(structure, segments, atol, **kwargs):
    inputs = _inputs(segments.device, **kwargs)
    ours, plain = attend(*inputs, structure), _plain(*inputs, segments)
    upstream = torch.randn(plain.shape, generator=torch.Generator().manual_seed(2)).to(segments.device)
    grads = torch.autograd.grad(ours, inputs, upstream.to(ours.dtype))
    assert torch.allclose(ours.double(), plain, atol=atol)
    for one, other in zip(grads, torch.autograd.grad(plain, inputs, upstream.double()), strict=True):
        assert torch.isfinite(one).all()
        assert torch.allclose(one.double(), other.double(), atol=4 * atol)


@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (3, 1)], ids=str)
def test_documents_one_by_one_and_by_mask_equal_the_plain_softmax(heads):
    structure = document_structure(document_starts(SEGMENTS), torch.float32)
    assert structure.lengths == (7, 1, 8, 12, 4)
    compiled = document_structure(document_starts(SEGMENTS), torch.float32, is_compiled=True)
    assert compiled.cu_seqlens.tolist()[:7] == [0, 7, 8, 16, 28, 32, 32] and len(compiled.cu_seqlens) == 33
    for chosen in (structure, compiled, Structure(mask=document_mask(document_starts(SEGMENTS)))):
        _check(chosen, SEGMENTS, 1e-5, heads=heads[0], key_heads=heads[1])


def test_rows_of_one_document_take_the_causal_kernel():
    assert document_structure(document_starts(torch.zeros(2, 16)), torch.float32) == CAUSAL
    _check(CAUSAL, torch.zeros(2, 16), 1e-5)


def test_a_number_that_comes_again_is_another_document():
    starts = document_starts(torch.tensor([[0, 0, 1, 0, 0]]))
    assert starts.tolist() == [[True, False, True, True, False]]
    assert not document_mask(starts)[0, 0, 4, 0]


def test_each_stage_of_a_pipeline_makes_the_same_shared_inputs():
    config = ModelConfig(97, 32, 48, 2, 4, 2, 16)
    one, other = (shared_inputs(config, (2, 16), SEGMENTS, dtype=torch.float32, device="cpu") for _ in range(2))
    assert torch.equal(one.rotary[0], other.rotary[0]) and one.structure == other.structure
    assert torch.equal(one.rotary[0][0, 7], one.rotary[0][0, 0]), "positions start anew at each document"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("heads", [(4, 2), (4, 4)], ids=str)
def test_documents_stay_apart_on_a_gpu(dtype, heads):
    segments = SEGMENTS.cuda()
    structure = document_structure(document_starts(segments), dtype)
    assert (structure.block_mask is None) == (dtype != torch.float32)
    atol = 1e-4 if dtype == torch.float32 else 2e-2
    _check(structure, segments, atol, dtype=dtype, heads=heads[0], key_heads=heads[1], head_dim=64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_has_the_losses_of_the_cpu():
    config = ModelConfig(97, 128, 256, 2, 4, 2, 64)
    model = CausalLM(config)
    initialise(model, seed=1)
    ids = torch.randint(0, 97, (2, 16), generator=torch.Generator().manual_seed(1))
    losses = model(ids, segment_ids=SEGMENTS, labels=ids)
    for dtype, atol in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        placed = model.to("cuda", dtype)
        again = placed(ids.cuda(), segment_ids=SEGMENTS.cuda(), labels=ids.cuda())
        assert torch.allclose(losses, again.cpu(), atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_layers_compile_without_a_break_and_once_for_all_batches(model_type):
    torch._dynamo.reset()
    model = CausalLM(ModelConfig(97, 32, 48, 3, 4, 2, 16, model_type=model_type))
    initialise(model, seed=1)
    ids = torch.randint(0, 97, (2, 16), generator=torch.Generator().manual_seed(1))
    plain = model(ids, segment_ids=SEGMENTS, labels=ids)
    plain.sum().backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.compile_layers(fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for segments in (SEGMENTS.flip(0), SEGMENTS):
            model.zero_grad()
            compiled = model(ids, segment_ids=segments, labels=ids)
            compiled.sum().backward()
    assert torch.allclose(compiled, plain, atol=1e-5)
    assert all(torch.allclose(p.grad, g, atol=1e-4) for p, g in zip(model.parameters(), grads, strict=True))


def test_a_head_of_one_key_serves_all_queries():
    inputs = _inputs(heads=4, key_heads=1)
    assert torch.allclose(
        attend(*inputs, CAUSAL), F.scaled_dot_product_attention(
            inputs[0].transpose(1, 2), *(x.expand(2, 16, 4, 16).transpose(1, 2) for x in inputs[1:]), is_causal=True
        ).transpose(1, 2), atol=1e-5,
    )  # fmt: skip
