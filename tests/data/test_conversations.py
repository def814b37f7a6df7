"""Formats of instructions and preferences; reasons of what cannot be used."""

import gzip
import json
from collections import Counter

import pytest

from qwen_core.data.conversations import BadRecordError, read_records, to_conversation, to_pair


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello "}]},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"question": "Hi", "answer": "Hello"},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": [{"type": "text", "value": "Hel"}, "lo"], "loss_weight": 1.0},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "?"},
            ]
        },
    ],
)
def test_every_format_becomes_the_same_conversation(record):
    assert to_conversation(record).messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "x"}, "unknown_format"),
        ({"messages": "x"}, "unknown_format"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no_assistant_turn"),
        ({"instruction": "x", "output": "  "}, "empty_reply"),
        ({"instruction": 3, "output": None}, "empty_reply"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "unsupported_role"),
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "broken_tool_call"),
        ({"conversations": [{"from": "function_call", "value": "{broken"}]}, "broken_tool_call"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}]}, "broken_tool_call"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "3"}}]}]},
            "broken_tool_call",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "unsupported_content"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}, "unsupported_weight"),
        ({"messages": [{"role": "assistant", "content": "x", "train": False}]}, "nothing_to_learn"),
        ({"question": "x", "answer": "y", "tools": "{broken"}, "broken_tools"),
        ({"question": "x", "answer": "y", "tools": {"name": "f"}}, "broken_tools"),
    ],
)
def test_unusable_conversation_tells_its_reason(record, reason):
    with pytest.raises(BadRecordError, match=reason):
        to_conversation(record)


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    ("calls", "answer"),
    [
        (
            [
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "function_call", "value": '{"name": "f", "arguments": "{\\"x\\": 1}"}'},
            ],
            {"from": "observation", "value": "3"},
        ),
        ([{"from": "tool_call", "value": json.dumps([CALL, CALL["function"]])}], {"from": "tool", "value": "3"}),
        (
            [{"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}],
            {"role": "tool", "content": "3", "tool_call_id": "1"},
        ),
    ],
)
def test_tool_calls_of_every_format_become_the_same(calls, answer):
    end = {"role": "assistant", "content": "three"}
    record = {"conversations": [*calls, answer, end], "tools": '[{"name": "f"}]', "system": "Be brief."}
    conversation = to_conversation(record)
    assert conversation.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "3"},
        end,
    ]
    assert conversation.tools == [{"name": "f"}]


def test_earlier_turns_and_weights_are_read():
    record = {"instruction": "c", "output": "d", "history": [["a", "b"]], "system": "s"}
    assert [message["content"] for message in to_conversation(record).messages] == ["s", "a", "b", "c", "d"]
    turns = [{"role": "assistant", "content": "a", "weight": 0}, {"role": "assistant", "content": "b", "weight": 1}]
    assert [message.get("train", True) for message in to_conversation({"messages": turns}).messages] == [False, True]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {
            "prompt": [{"role": "user", "content": "Q"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
    ],
)
def test_every_preference_format_becomes_the_same_pair(record):
    pair = to_pair(record)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([{"role": "user", "content": "Q"}], "good", "bad")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Q", "chosen": "a"}, "unknown_format"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "empty_prompt"),
        ({"prompt": "Q", "chosen": "a", "rejected": " a "}, "same_replies"),
        ({"prompt": "Q", "chosen": "", "rejected": "b"}, "empty_reply"),
    ],
)
def test_unusable_pair_tells_its_reason(record, reason):
    with pytest.raises(BadRecordError, match=reason):
        to_pair(record)


def test_broken_lines_and_files_are_counted(tmp_path):
    drops = Counter()
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{broken\n3\n{"a": 2}\n')
    assert [r["a"] for r in read_records(tmp_path / "a.jsonl", drops)] == [1, 2]
    assert drops == {"invalid_json": 2}
    whole = gzip.compress(("\n".join(json.dumps({"a": i * 7919}) for i in range(9000))).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert len(list(read_records(tmp_path / "b.jsonl.gz", drops))) > 1000 and drops["truncated_file"] == 1
