"""Who is champion, since when and why: the alias moves, and each move is told in a tag of the registered model.

    promote ─▶ alias champion ─▶ tag `champion.<number>.v<version>` of the model: version, previous, action, by, why
    roll back ─▶ the same, to the version that was champion before

Each move has a tag of its own, so that two at once never overwrite each other's. The alias moves first: a command that
is killed behind it finds the alias right and the tag missing, and adds it.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qwen_core.errors import InputError
from qwen_core.tracking.registry import CHAMPION, Registered, find_champion, find_version, set_version_tags, versions

PROMOTE, ROLL_BACK = "promote", "rollback"
_PREFIX = "champion."
_TRIES, _PASSING = 3, ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE")
_MOST_CHARS = 1000  # of a reason; a tag takes 5,000 in all


@dataclass(frozen=True)
class Move:
    """A move of the alias `champion`.

    Attributes:
        version: That became champion.
        previous: That was champion before; empty where there was none.
        action: `promote` or `rollback`.
        by: Who did it.
        why: The reason, in words.
        at: When, in UTC.
    """

    version: str
    previous: str
    action: str
    by: str
    why: str
    at: str


def promote(tracking_uri: str, registered: Registered, by: str, why: str, action: str = PROMOTE) -> Move | None:
    """Make a version champion, and tell of it; done twice it is done once.

    Args:
        tracking_uri: MLflow server or database.
        registered: The version.
        by: Who does it: a person, or a stage.
        why: The reason, in words.
        action: `promote` or `rollback`.

    Returns:
        What was told; `None` where the version is champion already and the history says so.
    """
    client, name = MlflowClient(tracking_uri=tracking_uri), registered.name
    champion, told = find_champion(tracking_uri, name), history(tracking_uri, name)
    is_champion = champion is not None and champion.version == registered.version
    if is_champion and told and told[-1].version == registered.version:
        return None
    previous = champion.version if champion and not is_champion else told[-1].version if told else ""
    move = Move(registered.version, previous, action, by, why[:_MOST_CHARS], at := _now())
    _set_alias(client, registered)
    # by number, for clocks go back; the version keeps two moves of one moment apart
    client.set_registered_model_tag(name, f"{_PREFIX}{len(told) + 1:06d}.v{registered.version}", _written(move))
    set_version_tags(
        tracking_uri, registered, {"promoted_at": at, "promoted_by": by, "promoted_why": move.why, "previous": previous}
    )
    return move


def reject(tracking_uri: str, registered: Registered, by: str, why: str) -> None:
    """Tell of a version that a person did not let become champion; no alias moves.

    Args:
        tracking_uri: MLflow server or database.
        registered: The version.
        by: Who does it.
        why: The reason, in words.
    """
    set_version_tags(
        tracking_uri, registered, {"rejected_at": _now(), "rejected_by": by, "rejected_why": why[:_MOST_CHARS]}
    )


def roll_back(tracking_uri: str, name: str, by: str, why: str, to: str | None = None) -> Move:
    """Give the alias back to the version that had it before, or to one that is named.

    Rolled back again it goes further back, not forward to what was left.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.
        by: Who does it.
        why: The reason, in words.
        to: Number of a version, instead of the one before.

    Returns:
        What was told.

    Raises:
        InputError: There is no champion, no version before it, or no such version; or it is champion already.
    """
    champion = find_champion(tracking_uri, name)
    if champion is None:
        known = ", ".join(one.version for one in versions(tracking_uri, name)[:10])
        told = f"its versions are {known}: make one champion with qwen-core promote {name} VERSION" if known else ""
        raise InputError(f"'{name}' has no champion to roll back from; {told or 'the registry knows no such model'}")
    target = to or _before(tracking_uri, champion)
    if target == champion.version:
        raise InputError(f"version {target} of '{name}' is champion already")
    move = promote(tracking_uri, find_version(tracking_uri, name, target), by, why, ROLL_BACK)
    assert move is not None
    set_version_tags(tracking_uri, champion, {"rolled_back_at": move.at, "rolled_back_by": by, "rolled_back_why": why})
    return move


def history(tracking_uri: str, name: str) -> list[Move]:
    """Read all moves of a model's alias `champion`.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model; one that does not exist has none.

    Returns:
        The oldest first.
    """
    quoted = name.replace("'", "\\'")
    found = MlflowClient(tracking_uri=tracking_uri).search_registered_models(f"name='{quoted}'")
    tags = {key: text for model in found for key, text in model.tags.items() if key.startswith(_PREFIX)}
    return [Move(**json.loads(tags[key])) for key in sorted(tags)]


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _set_alias(client: MlflowClient, registered: Registered) -> None:
    """Move the alias; MLflow's database refuses the second of two that make it at the same moment."""
    for attempt in range(_TRIES):
        try:
            client.set_registered_model_alias(registered.name, CHAMPION, registered.version)
            return
        except MlflowException as error:
            if error.error_code not in _PASSING or attempt == _TRIES - 1:
                raise


def _before(tracking_uri: str, champion: Registered) -> str:
    """Find the version that was champion before this one was promoted, and that still exists."""
    told = history(tracking_uri, champion.name)
    known = {one.version for one in versions(tracking_uri, champion.name)}
    version, seen = champion.version, {champion.version}
    while version:
        moves = [move for move in told if move.version == version and move.action == PROMOTE]
        version = moves[-1].previous if moves else ""
        if version in seen:
            break
        seen.add(version)
        if version in known:
            return version
    raise InputError(
        f"version {champion.version} of '{champion.name}' is the first champion that the history knows: name the "
        f"version to go back to (--to VERSION); there are {', '.join(sorted(known, key=int))}"
    )


def _written(move: Move) -> str:
    return json.dumps(asdict(move), ensure_ascii=False)
