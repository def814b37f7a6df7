"""Budgets: weights worked out by hand, caps, overlaps, names that are not there."""

import numpy as np
import pytest

from qwen_core.data.budget import Budget, mixture
from qwen_core.errors import InputError

SIZES = {("en", "web"): 8000.0, ("en", "books"): 2000.0, ("zh", "web"): 1000.0, ("code", "git"): 9000.0}


def taken(sizes, result):
    return {cell: round(sizes[cell] * weight) for cell, weight in result.weights.items()}


def test_without_a_budget_weights_are_obeyed_above_any_cap():
    result = mixture(SIZES, Budget(languages={"code": 0.1}, sources={"books": 9}))
    assert result.weights == {("code", "git"): 0.1, ("en", "books"): 9, ("en", "web"): 1, ("zh", "web"): 1}
    assert not result.warnings


def test_shares_of_a_total():
    """10,000: zh 3,000 of the 1,000 there are, so three epochs; code 1,000 of 9,000; en the other 6,000 of 10,000."""
    result = mixture(SIZES, Budget(total_tokens=10_000, shares={"zh": 0.3, "code": 0.1}))
    assert taken(SIZES, result) == {
        ("en", "web"): 4800,
        ("en", "books"): 1200,
        ("zh", "web"): 3000,
        ("code", "git"): 1000,
    }
    assert not result.warnings


def test_weights_decide_inside_a_budget():
    """Books count thrice: 8,000 to 6,000, so a budget of 7,000 is 4,000 and 3,000."""
    result = mixture(SIZES, Budget(sources={"books": 3}, tokens={"en": 7000}))
    assert taken(SIZES, result)["en", "web"] == 4000 and taken(SIZES, result)["en", "books"] == 3000
    assert result.weights["zh", "web"] == 1  # not named: as it was


def test_what_one_cell_may_not_give_the_others_of_its_budget_give():
    """20,000 en tokens of 8,000 + 2,000; books may be seen once, so web gives 18,000 (2.25 epochs)."""
    result = mixture(SIZES, Budget(tokens={"en": 20_000}, source_max_epochs={"books": 1}))
    assert taken(SIZES, result)["en", "web"] == 18_000 and taken(SIZES, result)["en", "books"] == 2000


def test_a_budget_beyond_the_cap_is_filled_as_far_as_it_goes_with_a_warning():
    result = mixture(SIZES, Budget(tokens={"zh": 10_000}))
    assert result.weights["zh", "web"] == 4
    (warning,) = result.warnings
    assert "mix.tokens.zh asks for 10,000 tokens and gets 4,000" in warning
    assert "holds 1,000" in warning and "mix.max_epochs (4) allows 4,000" in warning


def test_a_share_of_one_leaves_nothing_to_others():
    result = mixture(SIZES, Budget(total_tokens=5000, shares={"en": 1.0}))
    assert taken(SIZES, result) == {("en", "web"): 4000, ("en", "books"): 1000, ("zh", "web"): 0, ("code", "git"): 0}


def test_shares_of_everything_that_do_not_reach_one_are_told():
    result = mixture(SIZES, Budget(total_tokens=10_000, shares={"en": 0.5, "zh": 0.1, "code": 0.2}))
    assert sum(taken(SIZES, result).values()) == 8000
    assert "the mix has 8,000 of 10,000 tokens" in result.warnings[0]


def test_budgets_that_overlap_hold_together():
    """en 4,000 and web 3,000, over English web text too: both sums come out."""
    got = taken(SIZES, mixture(SIZES, Budget(tokens={"en": 4000, "source:web": 3000})))
    assert got["en", "web"] + got["en", "books"] == pytest.approx(4000, abs=2)
    assert got["en", "web"] + got["zh", "web"] == pytest.approx(3000, abs=2)


def test_alpha_flattens_languages():
    """en 10,000, code 9,000, zh 1,000 under alpha 0.5: in proportion to 100, 94.87, 31.62 of 20,000."""
    result = mixture(SIZES, Budget(alpha=0.5))
    got = taken(SIZES, result)
    assert got["zh", "web"] == 2792 and got["code", "git"] == 8377
    assert got["en", "web"] + got["en", "books"] == pytest.approx(8830, abs=1)
    assert mixture(SIZES, Budget(alpha=1.0)).weights == pytest.approx(dict.fromkeys(SIZES, 1.0))


def test_a_language_goes_before_a_source_of_the_same_name():
    sizes = {("code", "web"): 100.0, ("en", "code"): 100.0}
    assert mixture(sizes, Budget(tokens={"code": 50})).weights == {("code", "web"): 0.5, ("en", "code"): 1.0}
    assert mixture(sizes, Budget(tokens={"source:code": 50})).weights == {("code", "web"): 1.0, ("en", "code"): 0.5}


def test_a_weight_for_what_is_not_there_is_a_warning_with_the_nearest_name():
    result = mixture(SIZES, Budget(sources={"book": 2}, languages={"de": 1}))
    assert result.warnings[1].startswith(
        "mix.sources names 'book', which the corpus does not hold; did you mean 'books'?"
    )
    assert result.warnings[0].endswith("It holds: code, en, zh")


def test_a_budget_for_what_is_not_there_is_an_error():
    with pytest.raises(InputError, match=r"mix.shares.zhh names 'zhh'.* did you mean 'zh'"):
        mixture(SIZES, Budget(shares={"zhh": 0.5}))


def test_budgets_above_the_total_are_an_error():
    with pytest.raises(InputError, match=r"ask for 6,000 tokens, more than mix.total_tokens \(5,000\)"):
        mixture(SIZES, Budget(total_tokens=5000, tokens={"en": 6000}))


@pytest.mark.parametrize("seed", range(20))
def test_any_budget_keeps_to_its_caps_and_comes_as_near_as_they_allow(seed):
    random = np.random.default_rng(seed)
    cells = [(language, source) for language in "abcd" for source in "xyz" if random.random() < 0.8]
    sizes = {cell: float(random.integers(0, 10_000)) for cell in cells}
    language = cells[0][0]
    wanted = int(random.integers(1, 60_000))
    result = mixture(sizes, Budget(tokens={language: wanted}, max_epochs=3, source_max_epochs={"x": 1}))
    most = sum(size * (1 if cell[1] == "x" else 3) for cell, size in sizes.items() if cell[0] == language)
    got = sum(size * result.weights[cell] for cell, size in sizes.items() if cell[0] == language)
    assert got == pytest.approx(min(wanted, most), rel=1e-6, abs=1e-6)
    assert all(weight <= (1 if cell[1] == "x" else 3) for cell, weight in result.weights.items())
    assert any("asks for" in warning for warning in result.warnings) == (wanted > most * 1.002 and wanted - most > 1)


def test_an_empty_corpus_has_an_empty_mix():
    assert mixture({}, Budget(total_tokens=5)).weights == {}
