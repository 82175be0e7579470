import math

import pytest
import torch

from alfamix_core.acquisition.strategies.least_confidence import least_confidences


def test_three_classes_by_hand(device):
    """Probabilities .7, .2, .1: .2 + .1."""
    assert least_confidences(torch.tensor([[0.7, 0.2, 0.1]], device=device).double().log()).tolist() == pytest.approx(
        [0.3]
    )


def test_confident_samples_keep_their_digits(device):
    """At logits (0, -50) 1 - p_y is 0 in float64; Σ_{k≠y} p_k is e^-50."""
    result = least_confidences(torch.tensor([[0.0, -50.0]], device=device).double().log_softmax(dim=1))
    assert result.tolist() == pytest.approx([math.exp(-50)], rel=1e-12, abs=0)
