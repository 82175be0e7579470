import math

import pytest
import torch
from torch import nn

from alfamix_core.learning.optimiser import Optimiser
from alfamix_core.records.project import TrainingSettings

CLASSES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_steps_are_those_of_torchs_class_to_the_bit(name, decay):
    options = {"fused": True} if name != "sgd" else {"momentum": 0.9, "nesterov": True}
    start = [torch.randn(3, 4), torch.randn(5)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimiser = Optimiser(ours, TrainingSettings(optimiser=name, learning_rate=0.01, weight_decay=decay), 6)
    reference = CLASSES[name](theirs, lr=0.01, weight_decay=decay, **options)
    for _ in range(6):
        for one, other in zip(ours, theirs, strict=True):
            gradient = torch.randn_like(one)
            one.grad, other.grad = gradient.clone(), gradient.clone()
        optimiser.step()
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_step_forgets_the_gradients_and_leaves_parameters_without_one_alone():
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = Optimiser([still, moved], TrainingSettings(), 1)
    moved.grad = torch.ones(2)
    optimiser.step()
    assert moved.grad is None
    assert moved.tolist() == pytest.approx([0.999, 0.999])
    assert still.tolist() == [1, 1]


def test_the_cosine_falls_from_the_learning_rate_to_zero():
    optimiser = Optimiser([], TrainingSettings(learning_rate=0.2, schedule="cosine", optimiser="sgd"), 4)
    rates = []
    for _ in range(5):
        rates.append(optimiser.learning_rate)
        optimiser.step()
    half = 0.1 * math.sqrt(0.5)
    assert rates == pytest.approx([0.2, 0.1 + half, 0.1, 0.1 - half, 0.0])
