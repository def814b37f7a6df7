"""Trains one fastText model in a process of its own: `python -m qwen_core.data.fasttext_process SETTINGS.json`.

fastText 0.9.3 fills only a tenth of its input matrix for each thread (`DenseMatrix::uniformThread`): with one
thread, which alone gives the same bytes twice, nine tenths keep what the memory held before. In a process that did
other work that is rubbish, at times NaN; in a new one whose allocator clears each block, zeros.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from qwen_core.errors import QwenCoreError

_FRESH_MEMORY = {"MALLOC_PERTURB_": "255"}  # glibc fills each new block with this byte inverted: zeros


def train_apart(target: Path, scratch: Path, settings: dict[str, Any]) -> None:
    """Train a model in a new process.

    Args:
        target: Model file.
        scratch: Folder for the settings.
        settings: Arguments of `fasttext.train_supervised`.

    Raises:
        QwenCoreError: fastText failed; the text ends with what it said.
    """
    file = scratch / f"{target.stem}.json"
    file.write_text(json.dumps({"target": str(target), "settings": settings}), encoding="utf-8")
    command = [sys.executable, "-m", "qwen_core.data.fasttext_process", str(file)]
    done = subprocess.run(command, env=os.environ | _FRESH_MEMORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise QwenCoreError(f"fastText could not train '{target.stem}': {(done.stderr or done.stdout).strip()[-500:]}")


def _main() -> None:
    import fasttext

    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    fasttext.train_supervised(**given["settings"]).save_model(given["target"])


if __name__ == "__main__":
    _main()
