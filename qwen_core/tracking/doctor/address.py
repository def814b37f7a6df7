"""What a user may name: which tracking server, which run there, or which file.

RUN_ID, runs:/RUN_ID            a run of the tracking server that is set
http://HOST/#/experiments/1/runs/RUN_ID/model-metrics     a page of MLflow, copied from the browser
sqlite:///mlflow.db, ./mlruns, ./mlruns/1/RUN_ID          a database, a folder of MLflow
history.jsonl, trainer_state.json, or a folder with one   a file of a tool
demo-20260102-030405-9f3a       a run key of ours, or the name of a run
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from qwen_core.errors import InputError

FILES = ("history.jsonl", "data/history.jsonl", "trainer_state.json", "trainer_log.jsonl")
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Address:
    """Where to look.

    Attributes:
        tracking_uri: MLflow's server, database or folder; None where a file is meant or the default is to be taken.
        run_ids: Runs that are named.
        experiment_id: Experiment that is named.
        name: A run key or the name of a run, where no id is given.
        file: A file with the history.
    """

    tracking_uri: str | None = None
    run_ids: tuple[str, ...] = ()
    experiment_id: str | None = None
    name: str | None = None
    file: Path | None = None


def address_of(target: str) -> Address:
    """Understand what the user named.

    Args:
        target: As given on the command line.

    Returns:
        Where to look.

    Raises:
        InputError: A path or an address that cannot be a run.
    """
    text = target.strip()
    if text.startswith(("http://", "https://")):
        return _page(text)
    if text.startswith("runs:/"):
        return Address(run_ids=(text.removeprefix("runs:/").strip("/").split("/")[0],))
    if text.startswith("file:"):
        return _path(Path(unquote(urlsplit(text).path)), target)
    if "://" in text:
        return _database(text)
    path = Path(text).expanduser()
    if path.exists():
        return _path(path, target)
    if "/" in text or text.endswith((".jsonl", ".json", ".db")):
        raise InputError(f"there is no file or folder {path.absolute()}: give a path that exists, or a run id")
    return Address(run_ids=(text,)) if _RUN_ID.fullmatch(text) else Address(name=text)


def _page(text: str) -> Address:
    """Take apart the address of a page: what stands before `#` is the server, what follows names the run."""
    parts = urlsplit(text)
    server = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    route = unquote(parts.fragment)
    if not route and "/runs/" in parts.path:  # a server behind a proxy that hides the hash
        server, route = f"{parts.scheme}://{parts.netloc}", parts.path
    named = re.search(r"/runs/([0-9a-f]{32})", route)
    experiment = re.search(r"/experiments/(\d+)", route)
    ids = [named[1]] if named else _listed(route)
    return Address(server, tuple(ids), experiment[1] if experiment else None)


def _listed(route: str) -> list[str]:
    """Read the ids that pages of comparison have as JSON in their query."""
    listed = parse_qs(urlsplit(route).query).get("runs", ["[]"])[0]
    try:
        return [str(one) for one in json.loads(listed)]
    except ValueError:
        return []


def _database(text: str) -> Address:
    address, _, run_id = text.partition("#")
    if address.startswith("sqlite:///"):
        path = Path(address.removeprefix("sqlite:///"))
        if not path.exists():  # MLflow would make an empty database there
            raise InputError(f"there is no database {path.absolute()}: give sqlite:/// and a path that exists")
    return Address(address, (run_id,) if run_id else ())


def _path(path: Path, target: str) -> Address:
    if path.is_file():
        if path.suffix in (".db", ".sqlite", ".sqlite3"):
            return Address(f"sqlite:///{path.absolute()}")
        if path.suffix in (".jsonl", ".json"):
            return Address(file=path)
        raise InputError(f"{target} is no history: give a .jsonl, a trainer_state.json, a .db of MLflow, or a run id")
    file = next((path / name for name in FILES if (path / name).is_file()), None)
    found = Address(file=file) if file is not None else _store(path.absolute())
    if found is None:
        raise InputError(
            f"{target} holds no history: looked for {', '.join(FILES)}, mlflow.db and mlruns. Give a folder with one "
            f"of them, or a run id"
        )
    return found


def _store(folder: Path) -> Address | None:
    """Recognise what of MLflow a folder is: a database's, a store, an experiment or a run of a store."""
    if (folder / "mlflow.db").is_file():
        return Address(f"sqlite:///{folder / 'mlflow.db'}")
    if _is_store(folder):
        return Address(folder.as_uri())
    if (folder / "mlruns").is_dir():
        return Address((folder / "mlruns").as_uri())
    if not (folder / "meta.yaml").is_file():
        return None
    if _RUN_ID.fullmatch(folder.name):
        return Address(folder.parent.parent.as_uri(), (folder.name,), folder.parent.name)
    return Address(folder.parent.as_uri(), experiment_id=folder.name)


def _is_store(folder: Path) -> bool:
    is_below = (folder / "meta.yaml").is_file()  # an experiment, or a run
    return folder.name == "mlruns" or (not is_below and any(folder.glob("*/meta.yaml")))
