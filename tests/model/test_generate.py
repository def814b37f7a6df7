"""Generation: the cache changes nothing, stops are kept, seeds decide; batches and streams equal one prompt alone."""

import pytest
import torch

from qwen_core.errors import InputError
from qwen_core.model import (
    CausalLM,
    KeyValueCache,
    ModelConfig,
    Sampling,
    generate,
    generate_batch,
    initialise,
    stream,
)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(50, 32, 48, 2, 4, 2, 16, 64, initializer_range=0.2)
    made = CausalLM(config).eval()
    initialise(made, seed=1)
    return made


def test_cached_generation_equals_recomputing_everything(model):
    ids = [3, 1, 4]
    expected = list(ids)
    for _ in range(8):
        expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))
    assert generate(model, ids, 8) == expected[3:]


def test_generation_ends_with_the_stop_token(model):
    free = generate(model, [3, 1, 4], 8)
    stop = free[-1]
    assert generate(model, [3, 1, 4], 8, stop_ids=[stop]) == free[: free.index(stop) + 1]


def test_sampling_follows_its_seed(model):
    first = generate(model, [3], 12, Sampling(1.5, seed=7))
    assert generate(model, [3], 12, Sampling(1.5, seed=7)) == first
    assert generate(model, [3], 12, Sampling(1.5, seed=8)) != first


def test_top_k_and_top_p_leave_only_the_likeliest(model):
    greedy = generate(model, [3], 12)
    assert generate(model, [3], 12, Sampling(5.0, top_k=1)) == greedy
    assert generate(model, [3], 12, Sampling(5.0, top_p=1e-9)) == greedy
    assert generate(model, [3], 12, Sampling(5.0)) != greedy


def test_repetition_penalty_forbids_what_was_said_when_it_is_large(model):
    new = generate(model, [3], 12, Sampling(repetition_penalty=1e9))
    assert len({3, *new}) == 13


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "qwen2_moe", "qwen3_moe"])
def each_family(request):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    extra = experts if request.param.endswith("moe") else {}
    if request.param == "qwen2_moe":
        extra = extra | {"shared_expert_intermediate_size": 24}
    config = ModelConfig(50, 32, 48, 2, 4, 2, 16, 64, initializer_range=0.2, model_type=request.param, **extra)
    made = CausalLM(config).eval()
    initialise(made, seed=1)
    return made


def test_every_family_generates_a_batch_as_each_alone(each_family):
    prompts = [[3, 1, 4], [1], [5, 9, 2, 6, 5], [3, 1, 4, 1]]
    alone = [generate(each_family, prompt, 10) for prompt in prompts]
    assert generate_batch(each_family, prompts, 10) == alone


def test_sequences_of_a_batch_end_and_sample_by_themselves(model):
    prompts = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]
    free = generate_batch(model, prompts, 10)
    stop = free[0][2]
    expected = [new[: new.index(stop) + 1] if stop in new else new for new in free]
    assert generate_batch(model, prompts, 10, stop_ids=[stop]) == expected
    sampled = generate_batch(model, prompts, 6, Sampling(1.5, seed=7))
    assert sampled == [generate(model, p, 6, Sampling(1.5, seed=7 + i)) for i, p in enumerate(prompts)]
    assert generate_batch(model, prompts, 0) == [[], [], []]


def test_a_stream_gives_each_token_before_the_next_is_computed(model):
    calls = []
    hook = model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    tokens = stream(model, [3, 1, 4], 8)
    first = next(tokens)
    assert len(calls) == 1
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert [first, *tokens] == generate(model, [3, 1, 4], 8)
    hook.remove()


def test_a_cache_that_outgrows_its_buffer_changes_nothing(model, monkeypatch):
    monkeypatch.setattr("qwen_core.model.cache._GROWTH_TOKENS", 1)
    expected = generate(model, [3, 1, 4], 20)
    monkeypatch.undo()
    assert generate(model, [3, 1, 4], 20) == expected


def test_several_tokens_after_cached_ones_see_all_before_them(model):
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    cache = KeyValueCache()
    parts = [model(part, cache=cache) for part in ids.split([3, 3, 1], 1)]
    assert cache.length == 7
    assert torch.allclose(torch.cat(parts, 1), model(ids), atol=1e-5)


def test_generation_ends_where_the_positions_of_the_model_do(model):
    assert len(generate(model, [1] * 60, 50)) == 4
    assert [len(new) for new in generate_batch(model, [[1] * 60, [1] * 10], 20)] == [4, 20]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [([], "a prompt is empty"), ([3, 50], "token 50, the model's vocabulary is 50"), ([1] * 64, "64 tokens")],
)
def test_prompts_that_cannot_be_continued_are_refused(model, prompt, told):
    for function in (lambda: generate(model, prompt, 5), lambda: generate_batch(model, [[1], prompt], 5)):
        with pytest.raises(InputError, match=told):
            function()
