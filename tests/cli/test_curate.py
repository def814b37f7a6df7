"""`qwen-core curate` and `inspect`: a corpus of its own, added to, killed and begun again, looked into."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import qwen_core.demo
from qwen_core.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_address")]
BUNDLED = Path(qwen_core.demo.__file__).parent


def _lines(name):
    return [json.loads(line)["text"] for line in (BUNDLED / f"documents_{name}.jsonl").open(encoding="utf-8")]


def _write(path, texts):
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two files: the second repeats some of the first, to the letter and nearly, and once better."""
    folder = tmp_path_factory.mktemp("inputs")
    english, chinese = _lines("en"), _lines("zh")
    longer = [text + "\n\nOne more sentence stands at the very end of this copy." for text in english[:10]]
    first = _write(folder / "first.jsonl", [*english[:80], *chinese[:90], "too short"])
    second = _write(folder / "second.jsonl", [*longer, *english[5:20], *english[80:], *chinese[80:], chinese[3]])
    return first, second


def _curate(*arguments):
    result = CliRunner().invoke(main, ["curate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _texts(output):
    return [
        row["text"]
        for file in sorted(Path(output, "documents").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


def _digest(output):
    told = hashlib.sha256()
    for file in sorted(Path(output, "documents").glob("*.parquet")):
        told.update(file.name.encode() + file.read_bytes())
    return told.hexdigest()


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory, ray_address):
    """Both files at once."""
    output = tmp_path_factory.mktemp("whole") / "corpus"
    _curate(*inputs, "-o", str(output))
    return output


def test_added_input_gives_the_corpus_of_one_run_over_everything(inputs, whole, tmp_path):
    output = tmp_path / "corpus"
    _curate(inputs[0], "-o", str(output))
    before = _texts(output)
    told = json.loads(_curate(inputs[1], "-o", str(output), "--append", "--json"))
    assert _texts(output) == _texts(whole)
    assert set(before) - set(_texts(whole))  # a better copy came later and took the place of an earlier one
    assert told["stages"]["dedup"]["drops"]["exact_duplicate"] > 0
    assert told["stages"]["dedup"]["drops"]["near_duplicate"] >= 10
    again = json.loads(_curate(inputs[0], "-o", str(output), "--append", "--json"))
    assert _texts(output) == _texts(whole) and again["stages"]["ingest"]["documents"] == 170 + 208


def test_what_came_first_stays_where_that_is_asked_for(inputs, tmp_path):
    output, first = str(tmp_path / "corpus"), ("--set", "dedup.keep=first")
    _curate(inputs[0], "-o", output, *first)
    before = _texts(output)
    _curate(inputs[1], "-o", output, "--append", *first)
    assert _texts(output)[: len(before)] == before


def test_report_and_pictures_lie_beside_the_corpus(whole):
    report = json.loads((whole / "report.json").read_text())
    came, kept = report["stages"]["ingest"], report["stages"]["dedup"]
    assert came["drops"] == {"too_short": 1}
    assert kept["documents"] == len(_texts(whole)) and kept["text_bytes"] == sum(len(t.encode()) for t in _texts(whole))
    assert {p.name for p in (whole / "report" / "filter" / "plots").iterdir()} >= {"funnel.png", "histograms.png"}
    assert json.loads((whole / "report" / "dedup" / "tables" / "dropped.json").read_text())[0]["text"]


def test_inspect_shows_funnel_samples_and_the_way_of_a_document(whole):
    run = CliRunner()
    assert "near_duplicate" in run.invoke(main, ["inspect", str(whole)]).output
    by_language = json.loads(run.invoke(main, ["inspect", str(whole), "--by", "language", "--json"]).output)
    assert by_language["zh"]["came"] >= by_language["zh"]["kept"] > 100
    samples = json.loads(run.invoke(main, ["inspect", str(whole), "--reason", "near_duplicate", "--json"]).output)
    way = json.loads(run.invoke(main, ["inspect", str(whole), "--document", samples[0]["id"], "--json"]).output)
    assert [(step["stage"], step["fate"]) for step in way][-1] == ("dedup", "near_duplicate")
    kept = json.loads(run.invoke(main, ["inspect", str(whole), "--document", way[-1]["kept"], "--json"]).output)
    assert [step["fate"] for step in kept] == ["kept"] * 3
    assert Path(kept[0]["file"]).name in ("first.jsonl", "second.jsonl") and kept[0]["position"]
    unknown = run.invoke(main, ["inspect", str(whole), "--reason", "no_such"])
    assert unknown.exit_code == 3 and "near_duplicate" in unknown.output


def test_killed_at_any_stage_and_run_again_on_a_cluster_gives_the_same_bytes(inputs, whole, tmp_path, ray_address):
    output = tmp_path / "corpus"
    command = [sys.executable, "-m", "qwen_core", "curate", *inputs, "-o", str(output)]
    for stage in ("ingest", "filter", "dedup"):
        _kill_in(command, stage)
    subprocess.run([*command, "--address", ray_address], check=True, capture_output=True, timeout=300)
    assert _digest(output) == _digest(whole)


def _kill_in(command, stage):
    """Kill the command without warning soon after a stage has begun."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if stage in line and "running" in line:
            break
    time.sleep(0.5 + hash(stage) % 10 / 10)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=5)  # Ray's workers; its agents, which do no work, end a minute later


def test_append_to_nothing_is_refused(inputs, tmp_path):
    result = CliRunner().invoke(main, ["curate", inputs[0], "-o", str(tmp_path / "none"), "--append"])
    assert result.exit_code == 3 and "leave --append out" in result.output


def test_folder_without_a_corpus_cannot_be_inspected(tmp_path):
    result = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert result.exit_code == 4 and "holds no finished corpus" in result.output
