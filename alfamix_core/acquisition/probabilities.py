"""Class probabilities in forms that keep the digits of small values, and rankings by them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition.blocks import map_rows
from alfamix_core.acquisition.types import Features, Scores
from alfamix_core.errors import InputError


@dataclass(frozen=True)
class NoState:
    """The state of a strategy that needs nothing but one sample's logits."""


def log_probabilities(logits_nK: Tensor) -> Tensor:
    """Return ln p of each class, (n, K) in float64: finite even where p itself is 0 in any precision."""
    return logits_nK.to(torch.float64).log_softmax(dim=1)


def without_top(log_probs_nK: Tensor) -> Tensor:
    """Return Σ_{k≠y} p_k, y the most likely class: 1 - p_y, which would round to 0 for every confident sample.

    Args:
        log_probs_nK: (n, K) ln p, K >= 2.

    Returns:
        (n,) in [0, 1 - 1/K].
    """
    return log_probs_nK.scatter(1, log_probs_nK.argmax(dim=1, keepdim=True), -torch.inf).exp().sum(dim=1)


def score_logits(block: Features, measure: Callable[[Tensor], Tensor]) -> Scores:
    """Score each sample by a measure of its class probabilities.

    Args:
        block: n pool samples with logits_nK (n, K), K >= 2.
        measure: Function from ln p (n, K) in float64 to (n,); higher is more informative.

    Returns:
        The measure, rounded to float32.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.logits_nK is not None
    if block.logits_nK.shape[1] < 2:
        raise InputError(f"two classes are needed to compare, the logits have {block.logits_nK.shape[1]}")
    scores_n = map_rows(lambda logits_nK: measure(log_probabilities(logits_nK)), block.logits_nK)
    return Scores(block.positions_n, scores_n.to(torch.float32))
