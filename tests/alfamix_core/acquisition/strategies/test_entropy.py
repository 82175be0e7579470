import math

import pytest
import torch

from alfamix_core.acquisition.strategies.entropy import entropies


def test_three_classes_by_hand(device):
    assert entropies(torch.tensor([[0.7, 0.2, 0.1]], device=device).double().log()).tolist() == pytest.approx(
        [0.801819], abs=5e-7
    )


def test_a_class_without_probability_adds_nothing(device):
    """The released code takes the logarithm of 0."""
    result = entropies(torch.tensor([[0.0, -2000.0], [0.0, 0.0]], device=device).double().log_softmax(dim=1))
    assert result.tolist() == pytest.approx([0.0, math.log(2)])
