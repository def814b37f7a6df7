"""The trigger forms: fields, their sections, and the rules by which Airflow refuses a wrong value at trigger time."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from operators.deployment import text
from qwen_core.config import bundled_recipes

_SELDOM = "Date, or an earlier run / 日期与续跑"  # fields without a section stand in one that is open from the start
OVERRIDE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[^=\s.]+)*=(.|\n)+$"
"""An override: a dotted key, an equals sign, a value."""
RUN_KEY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""A run key is the name of a folder and of an asset's partition."""
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def recipe_fields() -> dict[str, Param]:
    """Make the fields that say which recipe runs.

    Returns:
        `recipe`, `recipe_path`, `overrides`, `inputs`, `date`.
    """
    told, bundled = text("RECIPE", "demo"), bundled_recipes()
    return {
        "recipe": Param(
            told if told in bundled else "demo",
            type="string",
            enum=bundled,
            title="Recipe / 配方",
            description_md="A bundled recipe. `demo` takes minutes on a laptop; the others have the architecture of "
            "the Qwen model that they are named after.",
        ),
        "recipe_path": Param(
            None if told in bundled else told,
            type=["null", "string"],
            pattern=r"\.ya?ml$",
            title="Recipe of your own / 自定义配方",
            description_md="Path of a YAML file that the Ray cluster can read, instead of the choice above. "
            "Try it before: `qwen-core recipe mine.yaml`",
        ),
        # The null makes a field optional: the form takes an empty one of any other type for a mistake.
        "overrides": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "pattern": OVERRIDE},
            title="Overrides / 覆盖项",
            description_md="One a line, `section.key=value`, such as `pretrain.max_steps=500`. Every key: "
            "docs/recipe.md. Faults end the first task at once, "
            "each with its path and the nearest valid key.",
        ),
        "inputs": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Inputs / 输入",
            description_md="Files, folders, globs or `s3://` addresses instead of the recipe's, one a line. "
            "`{date}` in them stands for the date.",
        ),
        "date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Date / 日期",
            section=_SELDOM,
            description_md="Stands for `{date}` in the inputs. Scheduled and backfilled runs have one by themselves.",
        ),
    }


def run_fields() -> dict[str, Param]:
    """Make the fields that say how a pipeline run goes.

    Returns:
        `approval`, `run_key`.
    """
    return {
        "approval": Param(
            False,
            type="boolean",
            title="Ask before a new champion / 上线前人工审批",
            description_md="A person decides in DAG `release` whether the new model becomes champion. "
            "Unticked, the recipe's `release.approval` counts.",
        ),
        "run_key": Param(
            None,
            type=["null", "string"],
            pattern=RUN_KEY,
            title="Run key / 运行标识",
            section=_SELDOM,
            description_md="Continue this pipeline run: finished stages are not run again. Empty starts a new one.",
        ),
    }


def model_fields() -> dict[str, Any]:
    """Make the fields that name a registered model.

    Returns:
        `model_name`, `version`.
    """
    return {
        "model_name": Param(
            "qwen-core-demo",
            type="string",
            pattern=MODEL_NAME,
            title="Model / 模型",
            description_md="Its name in MLflow's registry: `release.model_name` of the recipe.",
        ),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Version / 版本",
            description_md="The version that becomes champion. Empty: the one that was champion before.",
        ),
    }
