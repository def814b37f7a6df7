"""`qwen-core curate` as it is misused: odd inputs and places, changed settings, a second command, object stores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import ray
from click.testing import CliRunner

import qwen_core.demo
from qwen_core.cli import main
from qwen_core.cli.output import held, refuse_own_input
from qwen_core.errors import InputError, PlatformError
from qwen_core.filesystem import open_filesystem

BUNDLED = Path(qwen_core.demo.__file__).parent
NOTICE = "Please read this notice of the library before you go on with the text."


def lines_of(name, count):
    with (BUNDLED / f"documents_{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(count), strict=False)]


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout if code == 0 else result.output


def curate(*arguments, code=0):
    told = call("curate", *arguments, *(["--json"] if code == 0 else []), code=code)
    return json.loads(told) if code == 0 else told


def texts(output):
    filesystem, path = open_filesystem(f"{output}/documents")
    found = sorted(info.path for info in filesystem.get_file_info(pa.fs.FileSelector(path)) if info.size)
    return [text for file in found for text in pq.read_table(file, filesystem=filesystem)["text"].to_pylist()]


def drops(report):
    return {reason: n for stage in report["stages"].values() for reason, n in stage["drops"].items()}


@pytest.fixture(scope="module")
def english():
    return lines_of("en", 40)


@pytest.mark.parametrize(
    ("given", "output", "is_refused"),
    [
        ("/a/in", "/a/in/out", True),
        ("/a/in", "/a/out", False),
        ("/a/out/raw", "/a/out", False),
        ("/a/out", "/a/out", True),
        ("/a/out/documents/part-00003.parquet", "/a/out", True),
        ("/a/*", "/a/out", True),
        ("/a/*.jsonl", "/a/out", False),
        ("/a/**/*.json", "/a/out", True),
        ("/a/**/*.jsonl", "/a/out", False),
        ("s3://bucket", "s3://bucket/out", True),
        ("s3://bucket/in", "s3://bucket/out", False),
    ],
)
def test_output_within_the_input_is_refused(given, output, is_refused):
    if is_refused:
        with pytest.raises(InputError, match="would read its own result"):
            refuse_own_input(output, ["/elsewhere", given])
    else:
        refuse_own_input(output, [given])


def test_output_is_held_by_one_command_and_free_when_its_process_is_gone(tmp_path):
    with held(str(tmp_path)), pytest.raises(PlatformError, match=f"process {os.getpid()}, since"), held(str(tmp_path)):
        pass
    script = (
        "import os, signal\nfrom qwen_core.cli.output import held\n"
        f"with held({str(tmp_path)!r}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    with held(str(tmp_path)):
        pass


def test_faults_are_told_before_any_work(tmp_path, english, monkeypatch):
    given = write(tmp_path / "in.jsonl", english[:2])
    words = tmp_path / "words.en.txt"
    words.write_text("emperor\nre:silk(\n")
    (tmp_path / "broken.jsonl").write_text('{"question": "what?"}\n{broken\n')
    (tmp_path / "file").write_text("no folder")
    out = tmp_path / "out"
    cases = [
        (["--set", f"filter.keywords.lists=[{words}]"], 3, "words.en.txt, line 2: 'silk(' is no regular expression"),
        (["--set", f"filter.decontaminate.evaluation=[{tmp_path}/broken.jsonl]"], 3, "broken.jsonl, line 2: no JSON"),
        (["--set", f"filter.decontaminate.evaluation=[{tmp_path}/none.jsonl]"], 3, "no such file"),
        (["--address", "127.0.0.1:9"], 5, "no Ray answers at 127.0.0.1:9"),
        (["--address", "http://127.0.0.1:8265"], 5, "is the address of Ray's pages"),
        (["--set", "filter.langages=[en]", "--set", "dedup.num_buckets=-1", "--set", "nonsense"], 2, "3 faults"),
        ([tmp_path / "missing.jsonl", tmp_path / "no*"], 3, "missing.jsonl, "),
    ]
    for arguments, code, message in cases:
        monkeypatch.setenv("RAY_ADDRESS", "local")  # what an --address sets, stays set in this process
        assert message in curate(given, "-o", out, *arguments, code=code)
    assert not out.exists()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "cannot be written to (Not a directory" in curate(given, "-o", tmp_path / "file", code=4)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_address")
class TestWithRay:
    @pytest.mark.parametrize(("unit", "gap"), [("line", "\n"), ("paragraph", "\n\n")])
    def test_notice_of_ten_documents_stays_in_the_first(self, tmp_path, english, unit, gap):
        noticed = [text.rstrip() + gap + NOTICE for text in english[:10]]
        first = write(tmp_path / "first.jsonl", [*noticed[:5], *english[10:12]])
        second = write(tmp_path / "second.jsonl", [*noticed[5:], *english[12:14]])
        setting = ["--set", f"dedup.repeated={unit}"]
        curate(first, second, "-o", tmp_path / "whole", *setting)
        whole = texts(tmp_path / "whole")
        assert [NOTICE in text for text in whole] == [True] + [False] * 13
        curate(first, "-o", tmp_path / "grown", *setting)
        assert sum(NOTICE in text for text in texts(tmp_path / "grown")) == 5  # too few yet
        curate(second, "-o", tmp_path / "grown", "--append", *setting)
        assert texts(tmp_path / "grown") == whole

    def test_document_of_repeated_lines_alone_is_dropped_and_told(self, tmp_path, english):
        lines = [text.replace("\n", " ") for text in english[:3]]
        bearers = [f"{text.rstrip()}\n{line}" for text, line in zip(english[10:], lines, strict=False)]
        given = write(tmp_path / "in.jsonl", [*bearers, "\n".join(lines)])
        setting = ["--set", "dedup.repeated=line", "--set", "dedup.min_repeats=2"]
        report = curate(given, "-o", tmp_path / "out", *setting)
        assert drops(report) == {"repeated_lines": 1} and texts(tmp_path / "out") == bearers
        sample = json.loads(call("inspect", tmp_path / "out", "--reason", "repeated_lines", "--json"))[0]
        way = json.loads(call("inspect", tmp_path / "out", "--document", sample["id"], "--json"))
        assert [step["fate"] for step in way] == ["kept", "kept", "repeated_lines"]

    def test_evaluation_set_is_kept_out_and_its_change_alone_makes_parts_anew(self, tmp_path, english):
        passage = " ".join(english[3].split()[5:45])
        asked = tmp_path / "exam.jsonl"
        asked.write_text(json.dumps({"question": passage}) + "\n")
        given, out = write(tmp_path / "in.jsonl", english[:8]), tmp_path / "out"
        sets = ["--set", f"filter.decontaminate.evaluation=[{asked}]"]
        cut = ["filter.decontaminate.action=cut", "filter.decontaminate.margin_chars=5"]
        cut = [*sets, "--set", cut[0], "--set", cut[1], "--set", "filter.decontaminate.min_piece_chars=20"]

        def holds():
            return any(passage in " ".join(text.split()) for text in texts(out))

        def parts():
            return len(list((out / ".curate/artifacts/filter/parts").glob("*.json")))

        report = curate(given, "-o", out, *sets)
        assert drops(report) == {"contaminated": 1} and report["contamination"]["exam"]["items"] == {"1": 1}
        assert not holds() and len(texts(out)) == 7
        assert drops(curate(given, "-o", out, *cut)) == {} and not holds() and len(texts(out)) == 8
        before = parts()
        curate(given, "-o", out, *cut)
        assert parts() == before
        asked.write_text(json.dumps({"question": passage + " and more"}) + "\n")
        curate(given, "-o", out, *cut)
        assert parts() == before + 1

    def test_names_with_every_sign_are_read_and_written(self, tmp_path, english, monkeypatch):
        folder = tmp_path / "in, put [x] {k: v} #1 文"
        names = ["a, b [1] 'q' \"d\" #x: y.jsonl", "日本 文.jsonl", "new\nline.jsonl"]
        for name, text in zip(names, english, strict=False):
            write(folder / name, [text])
        (folder / "empty.jsonl").write_text("")
        out = tmp_path / "out: x #y, [z]"
        assert curate(folder / names[0], "-o", out)["stages"]["ingest"]["documents"] == 1
        report = curate(folder, "-o", out, "--append")
        assert report["stages"]["ingest"]["documents"] == 3 and drops(report) == {"empty_file": 1}
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(curate("~/" + folder.name, "-o", "~/home")["by_source"]) == 1
        assert texts(tmp_path / "home") and "ingest" in call("inspect", "~/home")

    def test_added_input_under_changed_settings_gives_what_one_run_with_these_gives(self, tmp_path, english):
        chinese = lines_of("zh", 12)
        first = write(tmp_path / "first.jsonl", [*english[:10], *chinese[:8]])
        second = write(tmp_path / "second.jsonl", [*english[5:15], *chinese[4:]])
        changed = ["--set", "filter.languages=[zh]", "--set", "dedup.shingle_words=3"]
        curate(first, "-o", tmp_path / "grown")
        curate(second, "-o", tmp_path / "grown", "--append", *changed)
        curate(first, second, "-o", tmp_path / "whole", *changed)
        assert texts(tmp_path / "grown") == texts(tmp_path / "whole") != []
        funnel = tmp_path / "grown" / "report" / "filter" / "tables" / "funnel.json"
        zh = funnel.read_text()
        curate(second, "-o", tmp_path / "grown", "--append")
        assert funnel.read_text() != zh
        curate(second, "-o", tmp_path / "grown", "--append", *changed)  # all of it was made before
        assert funnel.read_text() == zh

    def test_corpus_of_one_part_that_is_lost_whole_and_one_of_nothing(self, tmp_path, english):
        bad = write(tmp_path / "bad.jsonl", [f"one two three and the short line {n}" for n in range(5)])
        good = write(tmp_path / "good.jsonl", english[:1])
        report = curate(
            bad, good, "-o", tmp_path / "out", "--set", "ingest.part_bytes=100", "--set", "dedup.repeated=line"
        )
        assert drops(report) == {"too_few_words": 5} and texts(tmp_path / "out") == english[:1]
        (tmp_path / "empty.jsonl").write_text("")
        assert "no document came out of 1 file" in curate(tmp_path / "empty.jsonl", "-o", tmp_path / "none", code=3)
        assert "every document was dropped" in curate(bad, "-o", tmp_path / "none", code=3)
        assert "holds no finished corpus" in call("inspect", tmp_path / "none", code=4)

    def test_thousands_of_copies_leave_one(self, tmp_path, english):
        copies = [english[0]] * 3000 + [f"{english[0]}\n\nNumber {n} is the last one." for n in range(3000)]
        given = write(tmp_path / "in.jsonl", [*copies, *english[1:11]])
        loose = [f"filter.{name}.enabled=false" for name in ("gopher_repetition", "c4", "fineweb")]
        report = curate(given, "-o", tmp_path / "out", *(word for setting in loose for word in ("--set", setting)))
        assert report["duplicates"]["largest_cluster"] == 6000 and len(texts(tmp_path / "out")) == 11
        assert drops(report) == {"near_duplicate": 3000, "exact_duplicate": 2999}

    def test_second_command_into_the_same_output_is_turned_away(self, tmp_path, english):
        given, out = write(tmp_path / "in.jsonl", english), tmp_path / "out"
        with held(str(out)):
            assert "another command works on" in curate(given, "-o", out, code=5)
        curate(given, "-o", out)
        assert texts(out) == english


@pytest.mark.ray
@pytest.mark.slow
class TestCommand:
    def test_interrupted_it_says_so_leaves_no_process_and_goes_on(self, tmp_path, english):
        given, out = write(tmp_path / "in.jsonl", english), tmp_path / "out"
        process = self.begin(given, out)
        self.workers_of(process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 130 and "The same command goes on from here" in told and "Traceback" not in told
        assert not psutil.wait_procs(children, timeout=60)[1]
        process = self.begin(given, out)
        for worker in self.workers_of(process, "ray::Map"):  # one that is killed before ray.init ends hangs Ray 2.60
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        assert process.communicate(timeout=240) and process.returncode == 0
        assert texts(out) == english

    @staticmethod
    def begin(given, out):
        command = [sys.executable, "-m", "qwen_core", "curate", given, "-o", str(out)]
        alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # In a group of its own, as a shell would start it.
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone, start_new_session=True
        )

    @staticmethod
    def workers_of(process, beginning="ray::"):
        """Wait for Ray's workers of a command."""
        while process.poll() is None:
            found = []
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    name = " ".join(child.cmdline())
                    if name.startswith(beginning) and "Agent" not in name:
                        found.append(child)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(process.communicate()[0])

    def test_object_store_holds_the_corpus_and_nothing_of_an_earlier_one(
        self, tmp_path, english, object_store, monkeypatch
    ):
        ray.shutdown()  # the workers of a new one know of the store
        monkeypatch.setenv("RAY_ADDRESS", "local")
        filesystem, bucket = open_filesystem("s3://corpora")  # other tests of this process have buckets of their own
        filesystem.create_dir(bucket)
        for name in ("first", "second"):
            local = write(tmp_path / f"{name}.jsonl", english[:4] if name == "first" else english[2:8])
            with filesystem.open_output_stream(f"{bucket}/in/{name}.jsonl") as out:
                out.write(Path(local).read_bytes())
        curate("s3://corpora/in/first.jsonl", "-o", "s3://corpora/out")
        report = curate(tmp_path / "second.jsonl", "-o", "s3://corpora/out/", "--append")  # a local one is added
        assert drops(report) == {"exact_duplicate": 2} and texts("s3://corpora/out") == english[:8]
        assert "exact_duplicate" in call("inspect", "s3://corpora/out")
        assert curate("s3://corpora/in/first.jsonl", "-o", "s3://corpora/out")["stages"]["dedup"]["documents"] == 4
        assert texts("s3://corpora/out") == english[:4]
        listed = filesystem.get_file_info(pa.fs.FileSelector(f"{bucket}/out"))
        assert {info.base_name for info in listed} == {".curate", "documents", "report", "report.json"}
