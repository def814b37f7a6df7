"""Classifiers: the same bytes whatever the memory held before, and scores that tell the labels apart."""

import numpy as np
import pytest

pytest.importorskip("fasttext")

from qwen_core.data.classify import Example, roc_auc, scores, split_examples, train_classifier
from qwen_core.errors import InputError

GOOD = ["The river carries salt into the sea", "盐随着河水流进大海", "Water rises from the sea and falls as rain"]
BAD = ["click here buy now click here", "点击领取 加微信 点击领取", "login register login register home"]
EXAMPLES = [
    Example(f"{text} {n}", label) for label, texts in (("high", GOOD), ("low", BAD)) for text in texts for n in range(6)
]
SETTINGS = {"epoch": 10, "lr": 0.5, "dim": 16, "wordNgrams": 2, "seed": 1}


def test_model_is_the_same_bytes_after_memory_was_used_and_freed(tmp_path):
    train_classifier(EXAMPLES, tmp_path / "a.bin", tmp_path, **SETTINGS)
    rubbish = [np.full(2**18, np.nan, dtype=np.float32) for _ in range(64)]
    del rubbish
    train_classifier(EXAMPLES, tmp_path / "b.bin", tmp_path, **SETTINGS)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    values = scores(str(tmp_path / "a.bin"), [e.text for e in EXAMPLES] + ["。。"], "high")
    truth = np.array([e.label == "high" for e in EXAMPLES])
    assert roc_auc(values[:-1], truth) > 0.95
    assert values[-1] == 0.5


def test_one_label_alone_is_refused():
    with pytest.raises(InputError, match="two labels"):
        split_examples([Example("x", "high")] * 4, 0.2, 0)
