"""Logs stay small over months."""

import os
import subprocess
import sys
import time

from qwen_core.platform.housekeeping import Housekeeper, delete_older, rotate
from qwen_core.platform.settings import Home
from tests.platform.platforms import until


def test_large_log_is_moved_aside_while_its_writer_goes_on(tmp_path):
    log = tmp_path / "demo.log"
    script = "import sys\nfor line in sys.stdin: print(line.strip() * 100, flush=True)"
    with log.open("ab") as out:
        writer = subprocess.Popen([sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=out, text=True)
    for number in range(5):
        writer.stdin.write(f"{number}\n")
        writer.stdin.flush()
        until(lambda text=f"{number}" * 100: text in log.read_text(), 20, "it is written", every=0.01)
        assert rotate(log, max_bytes=50, kept=3)
    writer.stdin.close()
    writer.wait()
    assert log.read_text() == ""
    assert [(tmp_path / f"demo.log.{number}").read_text()[0] for number in (1, 2, 3)] == ["4", "3", "2"]
    assert not (tmp_path / "demo.log.4").exists()


def test_small_log_is_left_alone(tmp_path):
    log = tmp_path / "demo.log"
    log.write_text("short\n")
    assert not rotate(log, max_bytes=50) and log.read_text() == "short\n"


def test_full_disk_empties_the_log_all_the_same(tmp_path, monkeypatch):
    log = tmp_path / "demo.log"
    log.write_text("x" * 100)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", refuse)
    assert rotate(log, max_bytes=50) and log.stat().st_size == 0


def test_old_logs_and_their_empty_folders_are_deleted(tmp_path):
    old, new = tmp_path / "dag" / "run" / "1.log", tmp_path / "dag" / "2.log"
    for path in (old, new):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    long_ago = time.time() - 40 * 86_400
    os.utime(old, (long_ago, long_ago))
    os.utime(old.parent, (long_ago, long_ago))
    assert delete_older(tmp_path, 30) == 1
    assert new.is_file() and not old.exists() and (tmp_path / "link").is_symlink()


def test_each_duty_has_its_own_time(tmp_path):
    home = Home(tmp_path)
    log = home.folder("logs") / "demo.log"
    keeper = Housekeeper(home, keep_days=30)
    keeper.tick(0.0)
    log.write_bytes(b"x" * 20_000_001)
    keeper.tick(59.0)
    assert log.stat().st_size
    keeper.tick(60.0)
    assert not log.stat().st_size and log.with_name("demo.log.1").stat().st_size == 20_000_001
