"""What the doctor says: complete in both languages, of a width that fits, the same names in code, texts and docs."""

import io
import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from qwen_core.config import load_recipe
from qwen_core.tracking.doctor.causes import NAMES
from qwen_core.tracking.doctor.plot import plot, show, sparkline
from qwen_core.tracking.doctor.report import LANGUAGES, check_up, print_checkup, tell, texts, to_json
from tests.tracking import doctor_runs
from tests.tracking.doctor_runs import curve, run

DOCS = {"en": Path("docs/validation.md"), "zh": Path("docs/validation.zh-CN.md")}
ROOT = Path(__file__).parents[2]
BUILDERS = [*NAMES, *doctor_runs.PLANTED]


def _page(checkup, language="en", width=80, is_plain=False):
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    print_checkup(console, checkup, language, is_plain)
    return console.export_text()


def _fields(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cause_has_all_its_texts(language):
    found = texts(language)["causes"]
    assert set(found) == set(NAMES)
    for name, text in found.items():
        assert set(text) <= {"title", "sign", "why", "evidence", "more", "change"}, name
        assert all(text[key] for key in ("title", "sign", "why", "evidence")) and {"any", "ours"} <= set(text["change"])


def test_languages_say_the_same():
    english, chinese = (texts(language) for language in LANGUAGES)
    assert set(english["words"]) == set(chinese["words"])
    for name in NAMES:
        mine, theirs = english["causes"][name], chinese["causes"][name]
        assert set(mine["change"]) == set(theirs["change"]) and set(mine.get("more", {})) == set(theirs.get("more", {}))
        assert _fields(mine["evidence"]) == _fields(theirs["evidence"]), name
        for key, text in mine.get("more", {}).items():
            assert _fields(text) == _fields(theirs["more"][key]), (name, key)
        for key, text in mine["change"].items():
            assert _fields(text) == _fields(theirs["change"][key]), (name, key)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_sentence_can_be_filled_for_every_tool(name):
    checkup = check_up(getattr(doctor_runs, name)(0))
    for language in LANGUAGES:
        for one in checkup.diagnoses:
            assert set(one.finding.more) <= set(texts(language)["causes"][one.cause].get("more", {}))
            for tool in texts(language)["causes"][one.cause]["change"]:
                checkup.evidence.tool = tool
                told = tell(one, checkup.evidence, language)
                assert told.evidence and told.change[0][0] == tool
                assert not re.search(r"[{}]", " ".join([*told.evidence, *(text for _, text in told.change)]))


def test_settings_of_the_recipe_that_are_named_exist():
    tree = load_recipe("demo").model_dump()
    for language in LANGUAGES:
        told = json.dumps(texts(language)["causes"], ensure_ascii=False).replace("{stage}", "pretrain")
        named = set(re.findall(r"(?<![A-Za-z0-9_])(?:pretrain|pack|dedup|filter|sft)\.[a-z_.]*[a-z0-9_]", told))
        assert len(named) > 15
        for name in named:
            place = tree
            for word in name.split("."):
                assert word in place, name
                place = place[word]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cause_and_its_texts_stand_in_the_docs(language):
    page = (ROOT / DOCS[language]).read_text(encoding="utf-8")
    for name, text in texts(language)["causes"].items():
        assert f"`{name}`" in page and text["title"] in page and text["sign"] in page, name


@pytest.mark.parametrize("width", [50, 80, 140, 250])
@pytest.mark.parametrize("name", ["healthy", "evaluated_once_at_end", "run_per_resume", "time_as_step", "summary_only"])
def test_page_fits_the_terminal(name, width):
    for language in LANGUAGES:
        page = _page(check_up(getattr(doctor_runs, name)(0)), language, width)
        assert max(cell_len(line.rstrip()) for line in page.splitlines()) <= width


def test_page_names_cause_figures_and_remedy_of_the_tool_that_logged():
    page = " ".join(_page(check_up(doctor_runs.evaluated_once_at_end(0)), width=140).split())
    assert "evaluated_once_at_end fault, sure" in page
    assert "eval_loss has 1 point, at step 1,000; loss has 201, from step 1 to 1,000." in page
    assert 'in transformers\' Trainer: eval_strategy="steps", eval_steps=50' in page
    page = " ".join(_page(check_up(doctor_runs.overfitting(0)), "zh", 140).split())
    assert "过拟合：验证损失已过最低点" in page and "pretrain.use_best_checkpoint=true" in page


def test_healthy_run_gets_a_clean_bill_and_notes_do_not_spoil_it():
    assert "No fault found." in _page(check_up(doctor_runs.healthy(0)))
    checkup = check_up(doctor_runs.plateau(0))
    assert checkup.is_healthy and "something to know" in _page(checkup) and "plateau" in _page(checkup)
    assert not check_up(doctor_runs.overfitting(0)).is_healthy


def test_run_without_a_recognised_loss_asks_for_one():
    page = " ".join(_page(check_up(run(curve("accuracy", [1, 2, 3], [0.1, 0.2, 0.3])))).split())
    assert "--metric validation_loss=NAME" in page and "No fault" not in page


@pytest.mark.parametrize("name", [*BUILDERS, "healthy"])
def test_json_is_plain_also_with_nan(name):
    told = json.loads(json.dumps(to_json(check_up(getattr(doctor_runs, name)(0)), "en"), allow_nan=False))
    assert {"run_id", "tool", "is_healthy", "metrics", "curves", "diagnoses"} <= set(told)
    assert told["is_healthy"] == (not [one for one in told["diagnoses"] if one["severity"] != "note"])


def test_sparkline_leaves_blanks_where_points_are_missing():
    made = sparkline(curve("x", np.append(np.arange(10), np.arange(30, 40)), np.arange(20.0)), 40)
    assert "  " in made and made.startswith("▁") and made.endswith("█")
    assert sparkline(curve("x", [5], [2.0]), 40) == "▁"
    assert sparkline(curve("x", [1, 2], [np.nan, np.nan]), 40) == ""
    assert set(sparkline(curve("x", range(50), range(50)), 20, is_plain=True)) <= set("_.-=+*#@")


def test_plot_is_drawn_in_its_width_and_in_ascii_where_asked():
    curves = [curve("a", range(200), np.linspace(9, 3, 200)), curve("b", [0, 100, 199], [9, 6, 3])]
    lines = [line.plain for line in plot(curves, 60)]
    assert len(lines) == 13 and all(len(line) <= 60 for line in lines) and "●" in "".join(lines)
    assert "".join(line.plain for line in plot(curves, 60, is_plain=True)).isascii()
    assert plot([curve("a", [1], [np.nan])], 60) == []
    assert plot([curve("a", [1], [2.0])], 60)


@pytest.mark.parametrize(
    "value, text",
    [(1000.0, "1,000"), (3.14159, "3.142"), (0.0003, "3.00e-04"), (float("nan"), "nan"), (12345.6, "12,346"), (0, "0")],
)
def test_number_is_brief(value, text):
    assert show(value) == text
