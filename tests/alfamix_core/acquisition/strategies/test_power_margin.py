import math

import pytest
import torch

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.strategies.power_margin import log_margins
from alfamix_core.acquisition.types import Features


def scored(task, seed=0, **parameters):
    strategy = strategies.load("power_margin", parameters)
    return strategy.score(task.pool, strategy.prepare(task.labelled, task.head, seed)).scores_n


def test_three_classes_by_hand(device):
    """Probabilities .7, .2, .1: ln (.2 + .3); with a Gumbel number of .3 the score is -.3931."""
    result = log_margins(torch.tensor([[0.7, 0.2, 0.1]], device=device).double().log())
    assert result.tolist() == pytest.approx([math.log(0.5)])
    assert float(result) + 0.3 == pytest.approx(-0.3931, abs=5e-5)
    assert math.log(0.9) - 1 == pytest.approx(-1.1054, abs=5e-5)


def test_confident_samples_keep_their_digits(device):
    """Two classes at logits (0, -800): p_(2) twice, whose exponential is 0 in any precision."""
    result = log_margins(torch.tensor([[0.0, -800.0]], device=device).double().log_softmax(dim=1))
    assert result.tolist() == pytest.approx([math.log(2) - 800])


def test_a_score_is_the_power_and_the_gumbel_number_of_seed_and_position(make_task):
    task = make_task()
    expected = 2 * log_margins(task.pool.logits_nK.double().log_softmax(dim=1))
    expected = expected + noise.gumbel(noise.fold(9, noise.POWER_DRAW), task.pool.positions_n)
    torch.testing.assert_close(scored(task, 9, beta=2.0), expected.float())


def test_without_power_it_is_the_noise_and_with_much_it_is_margin(make_task):
    task = make_task()
    bare = noise.gumbel(noise.fold(0, noise.POWER_DRAW), task.pool.positions_n)
    assert torch.equal(scored(task, beta=0).argsort(), bare.argsort())
    margin = strategies.load("margin")
    margins = margin.score(task.pool, margin.prepare(task.labelled, task.head, 0)).scores_n
    assert torch.equal(scored(task, beta=1e3).argsort()[-20:], margins.argsort()[-20:])


@pytest.mark.on_real_devices
def test_samples_are_drawn_in_proportion_to_the_power_of_their_margin(make_task):
    """Two samples, 1 - margin .9 and .3: the first wins in three of four draws."""
    task = make_task(N=2)
    strategy = strategies.load("power_margin")
    logits = torch.tensor([[0.55, 0.45], [0.85, 0.15]], device=task.pool.positions_n.device).log()
    wins = 0
    for seed in range(2000):
        block = Features(task.pool.positions_n, None, logits)
        wins += int(strategy.score(block, strategy.prepare(task.labelled, task.head, seed)).scores_n.argmax()) == 0
    assert wins / 2000 == pytest.approx(0.75, abs=0.04)
