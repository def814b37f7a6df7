"""`promote`: a version of a registered model becomes champion, or the champion before it does again.

python -m qwen_core.jobs.promote --name N --version V [--by WHO] [--why REASON] [--force]
python -m qwen_core.jobs.promote --name N --version V --reject [--by WHO] [--why REASON]
python -m qwen_core.jobs.promote --name N --rollback [--to V] [--by WHO] [--why REASON]
─▶ qwen-core result: {"name", "version", "previous", "action", "changed", "by", "why"}
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from qwen_core.errors import InputError
from qwen_core.jobs.command import print_result, run_command, with_places
from qwen_core.tracking.promotion import Move, history, promote, reject, roll_back
from qwen_core.tracking.registry import find_version

GATE_TAG = "gate"
"""Tag of a version: what the gate of `release` said of it, `passed` or `refused`."""


def main(arguments: list[str] | None = None) -> int:
    """Command line of the job.

    Args:
        arguments: Instead of the process's own.

    Returns:
        Exit code: 0, or an error's own (see `qwen_core.errors`).
    """
    given = _read(arguments)

    def work() -> None:
        if given.rollback:
            result = rolled_back(given.tracking_uri, given.name, given.to, given.by, given.why)
        elif given.reject:
            result = rejected(given.tracking_uri, given.name, given.version, given.by, given.why)
        else:
            result = promoted(given.tracking_uri, given.name, given.version, given.by, given.why, given.force)
        print(f"[promote] {told(result)}", flush=True)
        print_result(result)

    return run_command("promote", work)


def promoted(
    tracking_uri: str, name: str, version: str, by: str, why: str | None, is_forced: bool = False
) -> dict[str, Any]:
    """Make a version champion.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.
        version: Its number.
        by: Who does it.
        why: The reason, in words.
        is_forced: Also where the gate refused it.

    Returns:
        What was done; `changed` is false where it was champion already.

    Raises:
        InputError: There is no such version, or the gate refused it.
    """
    found = find_version(tracking_uri, name, version)
    if found.tags.get(GATE_TAG) == "refused" and not is_forced:
        reason = found.tags.get("gate_reason", "see its tags")
        raise InputError(
            f"the gate refused version {version} of '{name}': {reason}. To make it champion nevertheless, add --force"
        )
    move = promote(tracking_uri, found, by, why or "promoted by hand")
    return _result(name, move or history(tracking_uri, name)[-1], move is not None)


def rejected(tracking_uri: str, name: str, version: str, by: str, why: str | None) -> dict[str, Any]:
    """Write down that a person said no to a version; the champion stays what it is.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.
        version: Its number.
        by: Who did it.
        why: The reason, in words.

    Returns:
        What was done.

    Raises:
        InputError: There is no such version.
    """
    reject(tracking_uri, find_version(tracking_uri, name, version), by, why or "no reason given")
    return {"name": name, "version": version, "action": "reject", "changed": False, "by": by, "why": why or ""}


def rolled_back(tracking_uri: str, name: str, to: str | None, by: str, why: str | None) -> dict[str, Any]:
    """Give the alias back.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.
        to: Number of a version, instead of the one before.
        by: Who does it.
        why: The reason, in words.

    Returns:
        What was done.

    Raises:
        InputError: There is nothing to go back to.
    """
    return _result(name, roll_back(tracking_uri, name, by, why or "rolled back by hand", to), True)


def told(result: dict[str, Any]) -> str:
    """Put a result into words.

    Args:
        result: As the functions above give it.

    Returns:
        One line.
    """
    if result["action"] == "reject":
        return f"version {result['version']} of '{result['name']}' was rejected by {result['by']}; the champion stays"
    if not result["changed"]:
        return f"version {result['version']} of '{result['name']}' is champion already; nothing was changed"
    before = f"before it was version {result['previous']}" if result["previous"] else "there was none before"
    return f"version {result['version']} of '{result['name']}' is champion; {before}"


def _result(name: str, move: Move, is_changed: bool) -> dict[str, Any]:
    return {"name": name, "changed": is_changed, **vars(move)}


def _read(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m qwen_core.jobs.promote", description="Move the alias champion, as a Ray job."
    )
    parser.add_argument("--name", required=True, help="the registered model")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--version", help="that becomes champion")
    wanted.add_argument("--rollback", action="store_true", help="the version that was champion before becomes it again")
    parser.add_argument("--reject", action="store_true", help="with --version: a person said no; it is written down")
    parser.add_argument("--to", help="with --rollback: the version to go back to")
    parser.add_argument("--by", default="", help="who does it, for the history")
    parser.add_argument("--why", help="the reason, for the history")
    parser.add_argument("--force", action="store_true", help="also a version that the gate refused")
    return with_places(parser, arguments, ("tracking_uri",))


if __name__ == "__main__":
    sys.exit(main())
