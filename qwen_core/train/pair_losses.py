"""Losses of preference pairs, from what policy and reference think of both replies.

A ratio is `log policy(reply) - log reference(reply)`, summed over the reply's tokens.

| kind | loss of a pair, with h = beta * (chosen ratio - rejected ratio) | source |
| --- | --- | --- |
| sigmoid | -(1 - e) log sigmoid(h) - e log sigmoid(-h) | DPO, arXiv 2305.18290; e > 0 is conservative DPO |
| robust | ((1 - e) (-log sigmoid(h)) - e (-log sigmoid(-h))) / (1 - 2 e) | arXiv 2403.00409 |
| hinge | max(0, 1 - h) | SLiC, arXiv 2305.10425 |
| ipo | (chosen ratio per token - rejected ratio per token - 1 / (2 beta))^2 | IPO, arXiv 2310.12036 |

IPO's ratios are taken per token, as TRL does, so that long replies do not weigh more.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

Kind = Literal["sigmoid", "robust", "hinge", "ipo"]


def pair_losses(ratios: Tensor, lengths: Tensor, *, kind: Kind, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Compute each pair's loss.

    Worked by hand: `sigmoid` at h = 0 gives ln 2 = 0.6931, at h = 1 ln(1 + 1/e) = 0.3133.

    Args:
        ratios: [2, pairs], of the chosen and of the rejected reply.
        lengths: [2, pairs], tokens of each reply.
        kind: Which loss.
        beta: Strength of the pull towards the reference.
        label_smoothing: e: share of pairs that are thought to be labelled the wrong way round, below 0.5.

    Returns:
        [pairs].
    """
    if kind == "ipo":
        means = ratios / lengths.clamp(min=1)
        return (means[0] - means[1] - 1 / (2 * beta)).square()
    margins = beta * (ratios[0] - ratios[1])
    if kind == "hinge":
        return F.relu(1 - margins)
    right, wrong = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    if kind == "robust":
        return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * right + label_smoothing * wrong
