"""The DAGs: edges, joints, form; nothing heavy is loaded with them."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("airflow")


@pytest.fixture(scope="module")
def dags():
    import importlib

    from qwen_core.stages import DAGS

    return {name: importlib.import_module(f"dags.{name}").dag for name in DAGS}


def test_every_stage_has_its_task_and_arrows_follow_what_it_reads(dags):
    from qwen_core.stages import STAGES

    assert [task.task_id for dag in dags.values() for task in dag.tasks] == list(STAGES)
    for dag in dags.values():
        names = {task.task_id for task in dag.tasks}
        for task in dag.tasks:
            assert task.upstream_task_ids == set(STAGES[task.task_id].inputs) & names


def test_dags_are_joined_by_assets(dags):
    names = list(dags)
    for before, after in itertools.pairwise(names):
        (outlet,) = dags[before].tasks[-1].outlets
        assert outlet.name == before
        assert f"name='{before}'" in str(dags[after].schedule)


def test_form_offers_the_bundled_recipes_and_checks_types(dags):
    params = dags["corpus"].params
    assert set(params) == {"recipe", "overrides", "inputs", "run_key"}
    assert "demo" in params.get_param("recipe").schema["examples"]
    with pytest.raises(Exception, match="is not of type"):
        params["overrides"] = "no list"


def test_parsing_loads_nothing_heavy():
    code = (
        "import sys; import dags.corpus, dags.pretrain, dags.align, dags.release; "
        "print([m for m in ('ray', 'torch', 'deepspeed', 'mlflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
