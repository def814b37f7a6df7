"""The mix: weights multiply, fractions are drawn by id, draws for different purposes are independent."""

import numpy as np
import pytest
from pydantic import ValidationError

from qwen_core.config.tokens import Mix
from qwen_core.data.mix import draws, repeats

IDS = [f"document-{n}" for n in range(4000)]


def test_weights_multiply_and_fractions_are_shares():
    weights = Mix(languages={"code": 0.1}, sources={"bundled": 2.5}).model_dump()
    plain = repeats(IDS, ["en"] * 4000, ["web"] * 4000, weights, 1)
    code = repeats(IDS, ["code"] * 4000, ["web"] * 4000, weights, 1)
    both = repeats(IDS, ["code"] * 4000, ["bundled"] * 4000, weights, 1)
    own = repeats(IDS, [None] * 4000, ["bundled"] * 4000, weights, 1)
    assert set(plain) == {1}
    assert code.mean() == pytest.approx(0.1, abs=0.02) and set(code) == {0, 1}
    assert both.mean() == pytest.approx(0.25, abs=0.03)
    assert set(own) == {2, 3} and own.mean() == pytest.approx(2.5, abs=0.03)
    assert np.array_equal(code, repeats(IDS, ["code"] * 4000, ["web"] * 4000, weights, 1))
    assert not np.array_equal(code, repeats(IDS, ["code"] * 4000, ["web"] * 4000, weights, 2))


def test_draws_for_two_purposes_are_independent():
    first, second = (draws(IDS, 1, purpose) < 2**63 for purpose in ("heldout", "mix"))
    assert (first & second).mean() == pytest.approx(0.25, abs=0.03)


def test_negative_weight_is_refused():
    with pytest.raises(ValidationError):
        Mix(languages={"code": -1})
