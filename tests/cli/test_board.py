"""The board: events once, progress in plain text where there is no terminal."""

import io

from rich.console import Console

from qwen_core.cli.board import Board
from qwen_core.progress import Progress


def _plain():
    out = io.StringIO()
    return Board(Console(file=out, width=120, force_terminal=False)), out


def test_plain_board_prints_each_change_once():
    board, out = _plain()
    with board:
        board.state("ingest", "running")
        board.state("ingest", "running")
        board.state("ingest", "done", 3.2)
        board.state("filter", "reused")
    assert out.getvalue().splitlines() == [
        "corpus    ingest       running",
        "corpus    ingest       done (3 s)",
        "corpus    filter       already done, reused",
    ]


def test_plain_board_prints_progress_but_does_not_flood():
    board, out = _plain()
    board.state("pretrain", "running")
    for step in range(50):
        board.progress(Progress("pretrain", step, 50, "steps", {"loss": 5.0}))
    assert out.getvalue().count("steps") == 1
    assert "[pretrain] 0/50 steps loss=5" in out.getvalue()


def test_live_board_shows_every_stage_and_the_figures():
    out = io.StringIO()
    board = Board(Console(file=out, width=120, force_terminal=True))
    with board:
        board.state("pretrain", "running")
        board.progress(Progress("pretrain", 5, 50, "steps", {"loss": 5.0}))
    text = out.getvalue()
    assert "ingest" in text and "release" in text and "5/50 steps loss 5" in text
