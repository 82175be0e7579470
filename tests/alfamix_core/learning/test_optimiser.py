import math

import pytest
import torch
from torch import nn

from alfamix_core.learning.optimiser import Optimiser
from alfamix_core.records.project import TrainingSettings


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_steps_are_those_of_the_formulas(name, decay):
    """Kingma and Ba, Adam, algorithm 1; Loshchilov and Hutter, AdamW, algorithm 2; SGD as torch documents it."""
    rate, (beta1, beta2) = 0.01, (0.9, 0.999)
    settings = TrainingSettings(optimiser=name, learning_rate=rate, weight_decay=decay)
    parameter = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
    weight, first, second = parameter.detach().double(), torch.zeros(3, 4), torch.zeros(3, 4)
    optimiser = Optimiser([parameter], settings, 6)
    for step in range(1, 7):
        gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        parameter.grad = gradient.clone()
        optimiser.step()
        slope = gradient.double() + (decay * weight if name != "adamw" else 0.0)
        if name == "sgd":
            first = 0.9 * first + slope if step > 1 else slope
            weight = weight - rate * (slope + 0.9 * first)
        else:
            weight = weight - (rate * decay * weight if name == "adamw" else 0.0)
            first = beta1 * first + (1 - beta1) * slope
            second = beta2 * second + (1 - beta2) * slope**2
            weight = weight - rate * (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + 1e-8)
        torch.testing.assert_close(parameter.detach().double(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_restored_optimiser_goes_the_same_way_to_the_bit(name):
    def stepped(parameter, optimiser, numbers):
        for number in numbers:
            parameter.grad = torch.randn(5, generator=torch.Generator().manual_seed(number))
            optimiser.step()

    settings = TrainingSettings(optimiser=name, schedule="cosine", weight_decay=0.01)
    whole, half = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    stepped(whole, Optimiser([whole], settings, 8), range(8))
    first = Optimiser([half], settings, 8)
    stepped(half, first, range(4))
    state = {name: value.clone() for name, value in first.state().items()}
    for _ in range(2):
        resumed = nn.Parameter(half.detach().clone())
        second = Optimiser([resumed], settings, 8)
        second.restore(state, first.steps_done)
        stepped(resumed, second, range(4, 8))
        assert torch.equal(resumed, whole), "restoring changes nothing in the state that is given"


def test_a_step_forgets_the_gradients_and_leaves_parameters_without_one_alone():
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimiser = Optimiser([still, moved], TrainingSettings(), 1)
    moved.grad = torch.ones(2)
    optimiser.step()
    assert moved.grad is None
    assert moved.tolist() == pytest.approx([0.999, 0.999])
    assert still.tolist() == [1, 1]


def test_the_cosine_falls_from_the_learning_rate_to_zero():
    optimiser = Optimiser(
        [nn.Parameter(torch.ones(1))], TrainingSettings(learning_rate=0.2, schedule="cosine", optimiser="sgd"), 4
    )
    rates = []
    for _ in range(5):
        rates.append(optimiser.learning_rate)
        optimiser.step()
    half = 0.1 * math.sqrt(0.5)
    assert rates == pytest.approx([0.2, 0.1 + half, 0.1, 0.1 - half, 0.0])
