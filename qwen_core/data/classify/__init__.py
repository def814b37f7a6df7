"""Text classifiers: labelled examples in, a folder of models out, calibrated scores for batches of texts.

    examples ─▶ character codes ─┬─▶ fastText (words; Chinese by character) ─▶ log odds ─┐
                                 └─▶ n-grams of characters, linear model   ─▶ log odds ─┴─▶ Platt scaling ─▶ 0 to 1

One such pair of models for each language that has enough examples, and one of all examples for the rest.
"""

from __future__ import annotations

from qwen_core.data.classify.model import scores

__all__ = ["scores"]
