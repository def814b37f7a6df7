"""Lines that rules take out, what they pass over, and what is left."""

import pytest

from qwen_core.config.filter import Filter
from qwen_core.data.rules import judge
from qwen_core.data.rules.batch import Batch
from qwen_core.data.rules.code import visible_characters
from qwen_core.data.rules.edits import prose_batch
from tests.data.rules.test_rules_reasons import CHINESE, GOOD

LIMITS = Filter().model_dump()
STRICT = {"c4": {"needs_terminal_punctuation": True, "removes_menus_only": False, "joins_wrapped_lines": False}}


def edited(text, language="en", settings=None):
    """Judge a text that is kept, and give back what was made of it and why."""
    verdict = judge([GOOD, text], ["en", language], Filter.model_validate(settings or {}).model_dump())
    assert list(verdict.reasons) == [None, None]
    assert set(verdict.texts) <= {1}
    return verdict.texts.get(1, text), {reason: number for reason, number in verdict.lines.items() if number}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Please enable JavaScript to see this page.", "javascript"),
        ("We use cookies to make this site better for you.", "policy"),
        ("x" * 1001 + " is a word of this line.", "long_word"),
    ],
)
def test_line_is_taken_out_and_counted(line, reason):
    head, tail = GOOD.split("\n", 1)
    text, reasons = edited(f"{head}\n{line}\n\n  {tail}", settings={"gopher_quality": {"max_mean_word_length": 100}})
    assert text == f"{head}\n\n  {tail}".strip()
    assert reasons == {reason: 1}


def test_line_about_javascript_stays_unless_c4s_own_phrase_is_asked_for():
    text = GOOD + "Our course on JavaScript begins in spring, when the herds have moved."
    assert edited(text) == (text, {})
    assert edited(text, settings={"c4": {"javascript_phrases": ["javascript"]}})[1] == {"javascript": 1}


def test_menu_is_taken_out_but_headings_and_lists_stay():
    text, reasons = edited("# Sand\n\nHome\nAbout us\nLogin\n\n" + GOOD + "- Fine sand\n- Stones\n- Mud")
    assert text == "# Sand\n\n" + GOOD + "- Fine sand\n- Stones\n- Mud"
    assert reasons == {"few_words": 3}


def test_lines_without_closing_sign_go_where_c4_is_followed():
    text, reasons = edited(GOOD + "A line that just ends\nTwo words.\nThis one ends...", settings=STRICT)
    assert text == GOOD.strip()
    assert reasons == {"no_terminal_punctuation": 2, "few_words": 1}


def test_citations_go_but_indices_and_link_labels_stay():
    text = GOOD.replace("ground.", "ground.[12]").replace("coast,", "coast[citation needed],") + "The list x[0] stays."
    assert edited(text)[0] == (GOOD + "The list x[0] stays.")
    kept = GOOD + "Take `x[1]` of the [1]: https://example.org/list and [2](https://example.org) of [3]_ here."
    assert edited(kept)[0] == kept


def test_chinese_boilerplate_goes_and_a_sentence_about_it_stays():
    text, reasons = edited(
        f"首页\n{CHINESE}\n他在公司里负责网站的备案号，版权所有的事情也归他管。\n版权所有 © 某公司 京ICP备123号", "zh"
    )
    assert text == f"{CHINESE}\n他在公司里负责网站的备案号，版权所有的事情也归他管。"
    assert reasons == {"navigation": 1, "boilerplate": 1}


TECHNICAL = (
    "---\ntitle: Sand\n---\n# Sand\n\n"
    + GOOD
    + "\n```python\n"
    + "x = {'a': 1}\n}\n" * 30
    + "```\n\n| a | b |\n|---|---|\n<div>\n\n"
    + "As in this block::\n\n    block = 1\n    block = 1\n\nIt ends here. So does the text.\n"
)


def test_code_in_prose_is_passed_over_and_stays():
    batch = prose_batch(Batch([TECHNICAL, GOOD], ["en", "en"]))
    kept = "# Sand\n" + GOOD + "As in this block::\nIt ends here. So does the text."
    assert [line for line in batch.texts[0].split("\n") if line] == kept.split("\n")
    assert batch.texts[1] == GOOD
    assert edited(TECHNICAL)[0] == TECHNICAL
    limits = Filter.model_validate({"passes_over_code": False}).model_dump()
    assert judge([TECHNICAL], ["en"], limits).reasons[0] is not None


def test_edits_of_the_prose_are_made_in_the_whole_document():
    text = TECHNICAL.replace("It ends here.", "We use cookies for you.\nIt ends here.[4]")
    assert edited(text)[0] == TECHNICAL.strip()
    many = [text if number % 2 else GOOD for number in range(20)]
    verdict = judge(many, ["en"] * 20, LIMITS)
    assert verdict.texts == {number: TECHNICAL.strip() for number in range(1, 20, 2)}


def test_text_wrapped_at_a_column_is_not_a_list():
    lines, words = [], GOOD.replace("\n", " ").split()
    while words:
        lines.append(" ".join(words[:9]))
        words = words[9:]
    text = "\n".join(lines)
    assert edited(text) == (text, {})


def test_visible_text_of_html_is_counted_without_tags_and_scripts():
    assert visible_characters("<p>four</p><script>if (a < b) {}</script> <style>p {}</style><b>two") == 7
    assert visible_characters("<script>never closed") == 0
    assert visible_characters("") == 0
