"""Micro-batches of conversations: padded or packed, token by token; packing changes no loss."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from qwen_core.data.packed import step_indices
from qwen_core.errors import ArtifactError
from qwen_core.model import IGNORE, CausalLM, ModelConfig, initialise
from qwen_core.train.conversations import Conversations, read_table
from qwen_core.train.sft import SftTask, answer_loss
from qwen_core.train.task import Alone
from tests.train.tables import OwnId, write

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.uint32())),
        ("labels_mask", pa.list_(pa.bool_())),
        ("language", pa.string()),
    ]
)


def conversations(count=40, seed=0, longest=30, vocab_size=90):
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        size = int(random.integers(2, longest))
        ids = random.integers(1, vocab_size, size)
        mask = random.random(size) < 0.5
        mask[-1] = True
        rows.append({"id": f"c{number}", "input_ids": ids, "labels_mask": mask, "language": ["zh", "en"][number % 2]})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def told_by_hand(table, members):
    """A row of conversations, one after another, with labels and segments, in plain Python."""
    ids, labels, segments = [], [], []
    for number, member in enumerate(members):
        row = table.slice(member, 1).to_pylist()[0]
        ids += row["input_ids"]
        learnt = [
            token if inside else IGNORE for token, inside in zip(row["input_ids"], row["labels_mask"], strict=True)
        ]
        labels += [IGNORE, *learnt[1:]]
        segments += [number] * len(row["input_ids"])
    return ids, labels, segments


@pytest.mark.parametrize("packed_seq_len", [None, 64])
@pytest.mark.parametrize("chunk", [None, 7])
def test_a_batch_is_what_it_is_by_hand(tmp_path, packed_seq_len, chunk):
    table = conversations()
    rows = Conversations(read_table(write(tmp_path / "a.arrow", table, chunk)), packed_seq_len)
    indices = [3, 0, 3, len(rows) - 1]
    batch = rows.batch(indices)
    names = rows.names(indices)
    assert names[0] == names[2]
    for row, name in enumerate(names):
        members = [int(one[1:]) for one in name.split()]
        ids, labels, segments = told_by_hand(table, members)
        padding = batch.input_ids.shape[1] - len(ids)
        assert batch.input_ids[row].tolist() == ids + [0] * padding
        assert batch.labels[row].tolist() == labels + [IGNORE] * padding
        assert batch.segment_ids[row].tolist() == segments + [-1] * padding
    assert batch.count == float((batch.labels != IGNORE).sum())
    assert batch.tokens == sum(len(told_by_hand(table, [int(o[1:]) for o in name.split()])[0]) for name in names)


def test_a_batch_without_padding_needs_no_segments():
    rows = Conversations(conversations())
    assert rows.batch([3]).segment_ids is None and rows.batch([3, 3]).segment_ids is None
    assert rows.batch([3, 4]).segment_ids is not None


def test_every_conversation_is_in_one_packed_row_and_rows_are_full_and_of_one_width():
    rows = Conversations(conversations(300), 64)
    names = " ".join(rows.names(range(len(rows)))).split()
    assert sorted(names) == sorted(f"c{number}" for number in range(300))
    assert rows.fill_ratio > 0.95 and len(rows) < 90
    assert {rows.batch([index]).input_ids.shape for index in range(len(rows))} == {(1, 64)}


def tiny_model():
    config = ModelConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
    )
    model = CausalLM(config)
    initialise(model, 3)
    return model


def test_a_packed_batch_has_the_loss_and_gradient_of_its_conversations_alone():
    model, table = tiny_model(), conversations(14)
    packed, alone = Conversations(table, 64), Conversations(table)
    batch = packed.batch(range(len(packed)))
    total = model(batch.input_ids, segment_ids=batch.segment_ids, labels=batch.labels).sum()
    gradient = torch.autograd.grad(total, list(model.parameters()))
    singly, count = 0.0, 0.0
    sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for index in range(len(alone)):
        one = alone.batch([index])
        loss = model(one.input_ids, labels=one.labels).sum()
        for kept, part in zip(sums, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            kept += part
        singly, count = singly + loss.item(), count + one.count
    assert batch.count == count
    assert total.item() / count == pytest.approx(singly / count, abs=1e-6)
    for packed_part, part in zip(gradient, sums, strict=True):
        assert torch.allclose(packed_part / count, part / count, atol=1e-6)


def test_what_other_conversations_of_a_row_say_changes_nothing():
    """Were there a leak, the losses of a row's second conversation would follow the first one's tokens."""
    model, table = tiny_model(), conversations(6, longest=12)
    batch = Conversations(table, 64).batch([0])
    second = batch.segment_ids[0] == 1
    losses = model(batch.input_ids, segment_ids=batch.segment_ids, labels=batch.labels)[0, second]
    changed = torch.where(second, batch.input_ids[0], 95 - batch.input_ids[0])[None]
    after = model(changed, segment_ids=batch.segment_ids, labels=batch.labels)[0, second]
    assert second.sum() > 1 and torch.equal(losses, after)


def test_held_out_answers_cost_the_same_packed_and_padded_and_are_told_by_language(tmp_path):
    model, path = Alone(tiny_model()), write(tmp_path / "a.arrow", conversations())
    padded = SftTask(path, path, 3).validate(model)
    packed = SftTask(path, path, 2, packed_seq_len=48).validate(model)
    assert set(padded) == {"loss", "loss/language/zh", "loss/language/en"}
    assert packed == pytest.approx(padded, abs=1e-6)
    assert answer_loss(model, read_table(path), 5) == pytest.approx(padded, abs=1e-6)


def test_rows_and_their_order_depend_on_data_seed_and_epoch_alone(tmp_path):
    path = write(tmp_path / "a.arrow", conversations(100))
    one, other = SftTask(path, path, 1, 64), SftTask(path, path, 8, 64)
    everything = range(len(one))
    assert one.describe(everything) == other.describe(everything)
    # the rows of a step are those of the global order, however many workers share them out
    step = step_indices(7, 5, 8, len(one)).tolist()
    whole = one.batch(step)
    halves = [other.batch(step[:4]), other.batch(step[4:])]
    assert torch.equal(whole.input_ids, torch.cat([half.input_ids for half in halves]))
    assert whole.count == sum(half.count for half in halves)


def test_the_first_token_of_a_conversation_is_never_predicted_even_if_the_mask_says_so(tmp_path):
    rows = [{"input_ids": [5, 6], "labels_mask": [True, True]}, {"input_ids": [7, 8], "labels_mask": [True, True]}]
    path = write(tmp_path / "a.arrow", pa.Table.from_pylist(rows, schema=pa.schema(list(SCHEMA)[1:3])))
    for packed in (None, 4):
        assert SftTask(path, path, 2, packed).validate(OwnId()) == {"loss": (6 + 8) / 2}


def test_a_conversation_that_fits_no_row_and_an_empty_or_broken_file_are_told(tmp_path):
    table = conversations()
    with pytest.raises(ArtifactError, match=r"of 29 tokens does not fit a packed row of 16: raise sft.packed_seq_len"):
        Conversations(table, 16)
    with pytest.raises(ArtifactError, match="no conversations: the 'instruct' artifact has none"):
        Conversations(table.slice(0, 0))
    path = write(tmp_path / "a.arrow", table)
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match=r"a.arrow cannot be read as an Arrow file .*cut off.* run the stage"):
        read_table(path)
    with pytest.raises(ArtifactError, match="cannot be read as an Arrow file"):
        read_table(str(tmp_path / "none.arrow"))


def test_an_empty_shard_among_others_is_passed_over():
    table = pa.concat_tables([conversations(5), conversations(0), conversations(5, seed=1)])
    assert Conversations(table, 64).batch([0]).tokens > 0 and len(Conversations(table)) == 10
