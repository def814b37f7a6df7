"""Words of Chinese text by a real segmenter, where a rule needs words: rjieba, jieba's dictionary and model in Rust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qwen_core.errors import MissingDependencyError


def mean_word_lengths(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Measure the words of each text.

    Args:
        texts: Chinese, of either script; unknown words are guessed by a hidden Markov model.

    Returns:
        Characters of a word on average, signs and space left out, [N]; 0 for a text without words.

    Raises:
        MissingDependencyError: rjieba is not installed.
    """
    try:
        import rjieba
    except ImportError as fault:
        raise MissingDependencyError(
            "filter.chinese.min_mean_word_length needs rjieba, which is not installed. "
            "Run: pip install 'qwen-core[data]', or set it to 0 to do without"
        ) from fault
    means = np.zeros(len(texts))
    for number, text in enumerate(texts):
        lengths = [len(word) for word in rjieba.cut(text) if word.isalnum()]
        means[number] = sum(lengths) / max(1, len(lengths))
    return means
