"""What the commands of all Ray jobs do alike: arguments, errors to exit codes, and the lines that answer the operator.

qwen-core mlflow run: EXPERIMENT/RUN      qwen-core manifest: URI      qwen-core result: {"one": "line of JSON"}
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from qwen_core.errors import NothingToDoError, QwenCoreError

_PLACES = {
    "store": ("QWEN_CORE_STORE", "root of the artifacts"),
    "tracking_uri": ("MLFLOW_TRACKING_URI", "MLflow server or database"),
}


def job_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Begin a job's command line.

    Args:
        name: The module.
        description: One line.

    Returns:
        A parser that knows the recipe, its overrides and the run key.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("--recipe", required=True, help="bundled name or path of a YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--run-key", required=True, help="the pipeline run that this belongs to")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="stands for {date} in ingest.inputs")
    return parser


def with_places(
    parser: argparse.ArgumentParser, arguments: list[str] | None, places: tuple[str, ...] = ("store", "tracking_uri")
) -> argparse.Namespace:
    """Read a command line that also names store and MLflow, or finds them in the environment.

    Args:
        parser: Without these two arguments.
        arguments: Instead of the process's own.
        places: Which of the two are needed.

    Returns:
        What was given.
    """
    for name in places:
        variable, told = _PLACES[name]
        parser.add_argument(f"--{name.replace('_', '-')}", default=os.environ.get(variable), help=told)
    given = parser.parse_args(arguments)
    missing = [name for name in places if not getattr(given, name)]
    if missing:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        variables = " and ".join(_PLACES[name][0] for name in missing)
        parser.error(f"{flags} needed (or {variables} in the environment)")
    return given


def run_command(name: str, work: Callable[[], None]) -> int:
    """Do a job's work; errors become a last line for people and an exit code for schedulers.

    Args:
        name: What begins each line, such as the stage's word.
        work: Does it, and prints the answer.

    Returns:
        Exit code: 0, or the error's own (see `qwen_core.errors`).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    try:
        work()
    except NothingToDoError as reason:
        print(f"[{name}] nothing to do: {reason}", flush=True)
        return reason.exit_code
    except QwenCoreError as error:
        print(f"[{name}] failed: {error}", flush=True)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        print(f"[{name}] failed: an unexpected error; the traceback above tells where", flush=True)
        return 1
    return 0


def print_result(result: Mapping[str, Any]) -> None:
    """Answer the operator with values; they become the task's XCom.

    Args:
        result: Plain JSON.
    """
    print(f"qwen-core result: {json.dumps(dict(result), ensure_ascii=False)}", flush=True)
