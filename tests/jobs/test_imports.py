"""What the processes of Ray's workers load: MLflow takes seconds and 130 MB in each, and only drivers talk to it."""

import subprocess
import sys

WORKERS = (
    "ingest",
    "filter",
    "dedup",
    "clusters",
    "tokenizer",
    "pack",
    "instruct",
    "preference",
    "reference",
    "measuring",
)


def _printed(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_tasks_of_the_stages_load_no_mlflow():
    names = ", ".join(f"qwen_core.jobs.{name}" for name in WORKERS)
    assert _printed(f"import sys, {names}; print('mlflow' in sys.modules)") == "False"


def test_training_workers_load_no_mlflow_with_deepspeed_and_have_it_afterwards():
    code = (
        "import sys\nfrom qwen_core.train.launch import _hidden\n"
        "with _hidden('mlflow'):\n    import qwen_core.train.worker\n"
        "print('deepspeed' in sys.modules, 'mlflow' in sys.modules, bool(__import__('mlflow').__version__))"
    )
    assert _printed(code) == "True False True"
