"""lm-evaluation-harness on a model folder of ours, with task files and data that lie on this machine."""

import json

import pytest

from qwen_core.errors import InputError, QwenCoreError
from qwen_core.jobs.harness import run_tasks
from qwen_core.model import CausalLM, ModelConfig, initialise, save_pretrained
from qwen_core.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer

pytestmark = pytest.mark.slow
SETTINGS = {
    "names": ["rivers", "seas"],
    "num_fewshot": 0,
    "limit": 4,
    "batch_size": 2,
    "apply_chat_template": False,
    "allow_downloads": False,
}
COMMON = """
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
CHOICE = "task: rivers\noutput_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: answer\n"
WRITE = (
    "task: seas\noutput_type: generate_until\ndoc_to_target: word\ngeneration_kwargs: {max_gen_toks: 4, until: ['x']}\n"
    "metric_list: [{metric: exact_match}]\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    lines = ["The river flows to the sea 2024.", "河水流向大海，慢慢沉下细沙。"] * 20
    save_tokenizer(train_tokenizer(iter([lines]), 330, 2), folder / "model")
    config = ModelConfig(load_tokenizer(folder / "model").vocab_size, 32, 48, 2, 4, 2, 16, 128, initializer_range=0.2)
    model = CausalLM(config)
    initialise(model, seed=3)
    save_pretrained(config, model.state_dict(), folder / "model", eos_token_id=2, pad_token_id=0)
    rows = [
        {"question": f"The river {number}", "choices": [" flows", " 大海"], "answer": number % 2, "word": "sea"}
        for number in range(4)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, text in (("rivers", CHOICE), ("seas", WRITE)):
        (tasks / f"{name}.yaml").write_text(text + COMMON.format(data=folder / "data.jsonl"))
    return folder


def test_choice_and_generation_tasks_give_figures_and_faults_say_what_to_do(place):
    settings = SETTINGS | {"include_path": str(place / "tasks")}
    figures = run_tasks(str(place / "model"), settings, "cpu", 1)
    assert 0 <= figures["task/rivers/acc"] <= 1 and figures["task/seas/exact_match"] == 0.0
    assert not any("stderr" in name for name in figures)
    assert run_tasks(str(place / "model"), settings, "cpu", 1) == figures
    with pytest.raises(InputError, match="no_such_task"):
        run_tasks(str(place / "model"), settings | {"names": ["no_such_task"]}, "cpu", 1)
    with pytest.raises(QwenCoreError, match=r"allow_downloads=true"):
        run_tasks(str(place / "model"), settings | {"names": ["arc_easy"]}, "cpu", 1)
