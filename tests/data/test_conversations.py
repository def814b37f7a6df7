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
        ({"conversations": [{"from": "function_call", "value": "{}"}]}, "unsupported_role"),
    ],
)
def test_unusable_conversation_tells_its_reason(record, reason):
    with pytest.raises(BadRecordError, match=reason):
        to_conversation(record)


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
