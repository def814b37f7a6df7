"""The champion's gate."""

import pytest

from qwen_core.jobs.release import decide
from qwen_core.tracking.registry import Registered

TAGS = {"heldout": "a", "dpo.bits_per_byte": "2.0"}


@pytest.mark.parametrize(
    ("champion", "expected", "words"),
    [
        (None, True, "there was none"),
        (("a", "2.1"), True, "2.0000 against 2.1000"),
        (("a", "1.99"), True, "champion"),
        (("a", "1.9"), False, "challenger only with 2.0000 against 1.9000"),
        (("b", "9.0"), False, "another held-out set"),
    ],
)
def test_challenger_becomes_champion_only_when_comparable_and_no_worse(champion, expected, words):
    present = champion and Registered("m", "1", {"heldout": champion[0], "dpo.bits_per_byte": champion[1]})
    is_better, reason = decide(present, TAGS, 0.01)
    assert is_better is expected
    assert words in reason
