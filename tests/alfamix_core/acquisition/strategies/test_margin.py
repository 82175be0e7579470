import math

import pytest
import torch

from alfamix_core.acquisition.strategies.margin import margins


def test_three_classes_by_hand(device):
    """Probabilities .7, .2, .1: 1 - (.7 - .2) = .2 + .3."""
    assert margins(torch.tensor([[0.7, 0.2, 0.1]], device=device).double().log()).tolist() == pytest.approx([0.5])


def test_a_tie_of_two_is_one(device):
    assert margins(torch.tensor([[5.0, 5.0]], device=device).double().log_softmax(dim=1)).tolist() == [1.0]


def test_confident_samples_keep_their_digits(device):
    """Two classes at logits (0, -50): p_(2) twice."""
    result = margins(torch.tensor([[0.0, -50.0]], device=device).double().log_softmax(dim=1))
    assert result.tolist() == pytest.approx([2 * math.exp(-50)], rel=1e-12, abs=0)
