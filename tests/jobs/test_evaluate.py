"""A champion measured anew on a challenger's held-out data."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from qwen_core.data.heldout import SCHEMA
from qwen_core.jobs.corpus import write_arrow
from qwen_core.jobs.heldout import pack_heldout
from qwen_core.jobs.lineage import HELDOUT_FILE
from qwen_core.jobs.measuring import measure_again
from qwen_core.jobs.parts import write_tables
from qwen_core.tokenizer import load_tokenizer, save_tokenizer
from tests.jobs.models import LINES, model_folder, tokenizer_of


@pytest.fixture
def data(tmp_path):
    """Held-out data as the challenger's run has it: its own tokenizer, texts beside the tokens."""
    save_tokenizer(tokenizer_of(), tmp_path / "tokenizer")
    rows = [
        {"id": str(number), "text": text, "language": "en", "source": "s", "chars": len(text)}
        for number, text in enumerate(LINES[:6])
    ]
    heldout = pa.Table.from_pylist(rows, schema=SCHEMA)
    place = tmp_path / "pack"
    write_arrow(
        pack_heldout(heldout, load_tokenizer(tmp_path / "tokenizer"), 32), f"{place}/validation/part-00000.arrow"
    )
    write_tables([heldout], f"{place}/{HELDOUT_FILE}")
    ids = pa.list_(pa.uint32())
    conversation = {"input_ids": [[1, 2, 3]], "labels_mask": [[False, True, True]], "language": ["en"]}
    table = pa.table({"input_ids": pa.array(conversation["input_ids"], ids)})
    for name in ("labels_mask", "language"):
        table = table.append_column(name, pa.array(conversation[name]))
    write_arrow(table, str(tmp_path / "instruct.arrow"))
    pairs = pa.table({f"{name}_ids": pa.array([[1, 2]], ids) for name in ("prompt", "chosen", "rejected")})
    write_arrow(pairs, str(tmp_path / "preference.arrow"))
    files = {"validation/part-00000.arrow": 1, HELDOUT_FILE: 1}
    packed = SimpleNamespace(files=files, details={"max_seq_len": 32}, path=lambda name: f"{place}/{name}")
    return {
        "packed": packed,
        "instruct": str(tmp_path / "instruct.arrow"),
        "preference": str(tmp_path / "preference.arrow"),
        "tokenizer": str(tmp_path / "tokenizer"),
    }


def test_a_champion_of_the_same_tokenizer_is_measured_on_everything(tmp_path, data):
    model_folder(tmp_path / "champion")
    figures = measure_again(str(tmp_path / "champion"), data)
    assert {"bits_per_byte", "bits_per_byte/language/en", "answer_loss", "preference_accuracy"} <= set(figures)


def test_a_champion_of_another_tokenizer_is_measured_on_the_same_texts_alone(tmp_path, data):
    model_folder(tmp_path / "same")
    model_folder(tmp_path / "champion", tokenizer_of(300))
    same, other = (measure_again(str(tmp_path / name), data) for name in ("same", "champion"))
    assert "answer_loss" not in other and "preference_accuracy" not in other
    assert other["bits_per_byte"] > same["bits_per_byte"]  # untrained, and more tokens for a byte
    del data["packed"].files[HELDOUT_FILE]  # of before texts were kept: nothing can be compared
    assert measure_again(str(tmp_path / "champion"), data) == {}
