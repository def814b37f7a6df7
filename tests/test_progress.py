"""The progress line: printed, and read back from behind the prefixes of logs."""

from qwen_core import progress


def test_line_reads_back_what_was_reported(capsys):
    progress.report("pretrain", 40, 240, "steps", loss=5.3125, tokens_per_second=4100.0)
    line = capsys.readouterr().out.strip()
    assert line == "[pretrain] 40/240 steps loss=5.3125 tokens_per_second=4100"
    assert progress.parse(line) == progress.Progress(
        "pretrain", 40, 240, "steps", {"loss": 5.3125, "tokens_per_second": 4100.0}
    )


def test_line_is_found_behind_a_log_prefix():
    line = "[2026-01-01 00:00:00] INFO - (TrainWorker pid=12) [sft] 1/60 steps loss=nan"
    found = progress.parse(line)
    assert found is not None and found.stage == "sft" and found.metrics["loss"] != found.metrics["loss"]


def test_line_without_a_total_tells_only_what_is_done():
    told = progress.Progress("tokenizer", 120, 0, "documents", {})
    assert str(told) == "[tokenizer] 120 documents" and progress.parse(str(told)) == told


def test_other_lines_are_no_progress():
    assert progress.parse("[sft] done in 3.0 s: /x/manifest.json") is None
    assert progress.parse("") is None
