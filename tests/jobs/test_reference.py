"""The reference model judges all pairs once, over Ray, to the same figures as in one process."""

from types import SimpleNamespace

import pyarrow as pa
import pytest
import ray

from qwen_core.artifacts import Store
from qwen_core.config import Recipe
from qwen_core.config.align import Dpo
from qwen_core.jobs.context import connect_ray
from qwen_core.jobs.corpus import write_arrow
from qwen_core.jobs.reference import judged_pairs
from qwen_core.model import CausalLM, ModelConfig, initialise, load_pretrained, save_pretrained
from qwen_core.train.dpo import pair_logprobs
from qwen_core.train.sft import read_table
from qwen_core.train.task import Alone

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_every_pair_is_judged_in_its_own_row_and_only_once(tmp_path):
    config = ModelConfig(50, 32, 48, 2, 4, 2, 16, 64, initializer_range=0.2)
    model = CausalLM(config)
    initialise(model, seed=1)
    save_pretrained(config, model.state_dict(), tmp_path / "model")
    rows = [
        {
            "id": str(number),
            "prompt_ids": [3] * (1 + number % 5),
            "chosen_ids": [number + 4, 7],
            "rejected_ids": [9] * (1 + number % 3),
        }
        for number in range(11)
    ]
    for split, some in (("train", rows[:9]), ("validation", rows[9:])):
        write_arrow(pa.Table.from_pylist(some), str(tmp_path / f"{split}.arrow"))
    made = SimpleNamespace(path=lambda name: str(tmp_path / name))
    told = []
    context = SimpleNamespace(
        attempt=SimpleNamespace(state_uri=str(tmp_path / "store" / "state")),
        store=Store(str(tmp_path / "store")),
        section=Dpo(micro_batch_size=2, precision="fp32"),
        recipe=Recipe(),
        progress=lambda *figures, **more: told.append(figures),
    )
    connect_ray()
    try:
        files = judged_pairs(context, made, made)
        assert told[-1] == (11, 11, "judged_pairs")
        times = len(told)
        assert judged_pairs(context, made, made) == files and len(told) == times
    finally:
        ray.shutdown()
    alone = Alone(load_pretrained(tmp_path / "model"))
    for split, count in (("train", 9), ("validation", 2)):
        table = read_table(files[split])
        expected, _ = pair_logprobs(alone, table, 4)
        assert table["id"].to_pylist() == [str(n) for n in (range(9) if split == "train" else range(9, 11))]
        assert table["reference_chosen"].to_pylist() == pytest.approx(expected[:, 0].tolist(), abs=1e-4)
        assert table["reference_rejected"].to_pylist() == pytest.approx(expected[:, 1].tolist(), abs=1e-4)
        assert len(table) == count
