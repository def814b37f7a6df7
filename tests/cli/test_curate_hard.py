"""`qwen-core curate` as it is misused: odd inputs and places, changed settings, a second command, object stores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import qwen_core.demo
from qwen_core.cli import main
from qwen_core.cli.curate import manifests_of
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


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all commands: each joins and leaves it."""
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", running.address)
        yield running
    running.shutdown()


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
