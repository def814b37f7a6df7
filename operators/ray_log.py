"""A job's log, shown once: each line exactly once, in bounded memory, whatever restarts.

Ray's Jobs API gives the whole log each time, and its tail over a websocket begins at the start after each break. So
the end of the log is read backwards (State API), and joined to what was shown by its last bytes:

    shown so far ────────▶|anchor|          position: bytes shown
    the file's end    [ ..|anchor|new lines]   the anchor occurs once: what follows is new
                      anchor missing, or twice: all is read, and as many bytes left out as were shown (rarely)

Only a position travels between worker, trigger and a restarted trigger. What comes too fast for a person to read is
left out, and the log says how much.
"""

from __future__ import annotations

import re
import time

from operators.ray_hook import RayHook
from operators.ray_job import RayJobStatus

_SMALL_BYTES = 1 << 16
"""A log up to this size is read as a whole."""
_ANCHOR_BYTES = 2048
_WINDOWS = (200, 5_000)
"""Lines from the end in which the anchor is looked for; then all is read."""
_HEAD_BYTES, _TAIL_BYTES = 1 << 19, 1 << 16
"""Of the new part at most so much is shown, from its begin and its end."""
_WHOLE_BYTES_PER_SECOND = 1 << 18
"""A whole log is read again no sooner than after so many seconds for its size."""
_MOST_LINE_BYTES = 1 << 14
_MLFLOW_RUN = re.compile(rb"^qwen-core mlflow run: (\S+)/(\S+)\s*\n", re.MULTILINE)


class RayJobLog:
    """Follows the log of one job."""

    def __init__(self, hook: RayHook, submission_id: str, position_bytes: int = 0) -> None:
        """Begin behind what was shown before.

        Args:
            hook: Asks Ray.
            submission_id: The job.
            position_bytes: Bytes of the log that were shown.
        """
        self._hook, self._submission_id = hook, submission_id
        self.position_bytes = position_bytes
        self.mlflow_run: tuple[str, str] | None = None
        self._anchor = b""
        self._next_whole = 0.0

    async def read(self, status: RayJobStatus) -> list[str]:
        """Read what is new.

        Args:
            status: Of the job, asked for before. Of one that runs, whole lines are read; of one that has ended, all.

        Returns:
            The lines.

        Raises:
            RayUnreachableError: The log cannot be read now.
        """
        if status.node_id is None:
            return []
        new = await self._new(status.node_id, status.is_terminal)
        if new is None:
            return []
        lines = new.lines(status.is_terminal)
        self.position_bytes += new.taken_bytes
        self._anchor = (self._anchor + new.seen)[-_ANCHOR_BYTES:]
        self.mlflow_run = self.mlflow_run or new.mlflow_run
        return lines

    async def _new(self, node_id: str, is_last: bool) -> _NewPart | None:
        """Find what follows the position: by the anchor, or by counting; `None` is 'not now'."""
        if self.position_bytes > _SMALL_BYTES and len(self._anchor) >= _ANCHOR_BYTES:
            for lines in _WINDOWS:
                end = await self._end(node_id, lines)
                if end is None or (at := end.find(self._anchor)) != end.rfind(self._anchor):
                    break
                if at >= 0:
                    part = _NewPart()
                    part.add(end[at + len(self._anchor) :])
                    return part
        if time.monotonic() < self._next_whole and not is_last:
            return None
        part, left = _NewPart(), self.position_bytes
        async with self._hook.async_log(node_id, self._submission_id, -1) as pieces:
            async for piece in pieces:
                part.add(piece[left:])
                left = max(0, left - len(piece))
        whole = self.position_bytes + part.bytes
        if whole > _SMALL_BYTES:
            self._next_whole = time.monotonic() + whole / _WHOLE_BYTES_PER_SECOND
        return part

    async def _end(self, node_id: str, lines: int) -> bytes | None:
        """Read the log's end; `None` where it is larger than a person reads."""
        found = bytearray()
        async with self._hook.async_log(node_id, self._submission_id, lines) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > _HEAD_BYTES:
                    return None
        return bytes(found)


class _NewPart:
    """Takes a stream of any length; keeps its begin, its end, and what it tells."""

    def __init__(self) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self.bytes = self.taken_bytes = 0
        self.seen = self._line = b""
        self.mlflow_run: tuple[str, str] | None = None

    def add(self, piece: bytes) -> None:
        if not piece:
            return
        self.bytes += len(piece)
        if self.mlflow_run is None:
            self._line = (self._line + piece)[-len(piece) - 500 :]
            if found := _MLFLOW_RUN.search(self._line):
                self.mlflow_run = found[1].decode(), found[2].decode()
            self._line = self._line[self._line.rfind(b"\n") + 1 :]
        room = max(0, _HEAD_BYTES - len(self._head)) if not self._tail else 0
        self._head += piece[:room]
        self._tail += piece[room:]
        if len(self._tail) > 2 * _TAIL_BYTES:
            del self._tail[:-_TAIL_BYTES]

    def lines(self, is_last: bool) -> list[str]:
        """Cut into lines, and say what is left out; takes whole lines alone, unless these are the last."""
        held = bytes(self._tail or self._head)
        # A line without an end is waited for, unless it is a progress bar's that grows for ever.
        whole = len(held) if is_last or len(held) - held.rfind(b"\n") > _MOST_LINE_BYTES else held.rfind(b"\n") + 1
        self.taken_bytes = self.bytes - (len(held) - whole)
        self.seen = held[:whole]
        if not self._tail:
            return _lines(self.seen)
        left_out = self.bytes - len(self._head) - len(self._tail)
        if not left_out:
            self.seen = bytes(self._head) + self.seen
            return _lines(self.seen)
        told = f"[{left_out:,} bytes of the job's log are left out here; Ray's page of the job has them]"
        return [*_lines(bytes(self._head)), told, *_lines(self.seen)]


def _lines(data: bytes) -> list[str]:
    """Cut into lines; of a line that a progress bar wrote over again and again, its last state."""
    text = data.decode(errors="replace")
    parts = text.split("\n")
    if parts and not parts[-1]:
        parts.pop()
    return [part.rstrip("\r").rsplit("\r", 1)[-1][:_MOST_LINE_BYTES] for part in parts]
