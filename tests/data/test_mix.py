"""The mix: weights multiply, fractions are drawn by id, draws for different purposes are independent."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from qwen_core.config.tokens import Mix
from qwen_core.data.mix import _numbers, cells_of, draws, is_below, repeats, weight_of

IDS = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in range(4000)]
NAMES = [f"document-{n}" for n in range(4000)]


@pytest.mark.parametrize("ids", [IDS, NAMES])
def test_fractions_are_shares_drawn_by_id(ids):
    for weight, counts in ((0.1, {0, 1}), (0.25, {0, 1}), (1.0, {1}), (2.5, {2, 3})):
        times = repeats(ids, np.full(4000, weight), 1)
        assert set(times) == counts and times.mean() == pytest.approx(weight, abs=0.03)
    assert np.array_equal(times, repeats(ids, np.full(4000, 2.5), 1))
    assert not np.array_equal(times, repeats(ids, np.full(4000, 2.5), 2))


@pytest.mark.parametrize("ids", [IDS, NAMES])
def test_draws_for_two_purposes_are_independent_and_even(ids):
    first, second = (draws(ids, 1, purpose) for purpose in ("heldout", "mix"))
    assert (is_below(first, 0.5) & is_below(second, 0.5)).mean() == pytest.approx(0.25, abs=0.03)
    assert np.corrcoef(first.astype(float), second.astype(float))[0, 1] == pytest.approx(0, abs=0.05)
    assert np.bincount((first >> np.uint64(61)).astype(int)).min() > 420  # of 500 in each eighth
    assert np.bincount((first & np.uint64(7)).astype(int)).min() > 420


def test_a_draw_does_not_depend_on_what_stands_beside_the_id():
    mixed = [IDS[0], "document-7", IDS[1].upper(), "", "ffff", "zzzzzzzzzzzzzzzz"]
    whole = draws(mixed, 3, "mix")
    assert len(set(whole.tolist())) == len(mixed)
    assert whole.tolist() == [int(draws([one], 3, "mix")[0]) for one in mixed]
    sliced = pa.chunked_array([mixed[:2], mixed[2:]]).slice(1)
    assert draws(sliced, 3, "mix").tolist() == whole.tolist()[1:]


def test_an_id_of_hexadecimal_digits_is_read_as_its_number():
    assert _numbers(["00000000000000ff", "ff00000000000001"]).tolist() == [255, 0xFF00000000000001]
    # pinned: another function would draw another corpus from the same recipe
    assert draws(["00000000000000ff", "document-1"], 42, "mix").tolist() == [10576554323441022229, 9596333306640063228]


def test_documents_are_grouped_by_language_and_source():
    cells, members = cells_of(["zh", "en", None, "zh"], ["b", "a", "a", "a"])
    assert cells == [("en", "a"), ("unknown", "a"), ("zh", "a"), ("zh", "b")]
    assert members.tolist() == [3, 0, 1, 2]
    assert cells_of([], [])[0] == []


def test_weights_of_language_and_source_multiply():
    assert weight_of(("code", "bundled"), {"code": 0.1}, {"bundled": 2.5}) == 0.25
    assert weight_of(("en", "web"), {"code": 0.1}, {"bundled": 2.5}) == 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"languages": {"code": -1}}, "greater than or equal to 0"),
        ({"tokens": {"zh": 10}, "shares": {"zh": 0.5}}, "both tokens and shares name zh"),
        ({"shares": {"zh": 0.7, "en": 0.4}}, "add up to 1.1"),
        ({"alpha": 0}, "greater than 0"),
    ],
)
def test_a_mix_that_contradicts_itself_is_refused(section, words):
    with pytest.raises(ValidationError, match=words):
        Mix(**section)
