import math

import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.strategies.bald import disagreements
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError

HEAD = LinearHead(torch.eye(2), torch.zeros(2))
NONE = Labelled(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


def of(device, *passes):
    return disagreements(torch.tensor(passes, dtype=torch.float64, device=device).log()[None].clamp(min=-1000)).item()


def test_two_passes_by_hand(device):
    """Sure of different classes: ln 2; (.9, .1) and (.5, .5): 0.1017; the same twice: 0."""
    assert of(device, [1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.log(2))
    assert of(device, [0.9, 0.1], [0.5, 0.5]) == pytest.approx(0.1017, abs=5e-5)
    assert of(device, [0.3, 0.7], [0.3, 0.7]) == pytest.approx(0, abs=1e-15)


def test_it_is_entropy_of_the_mean_less_the_mean_entropy(device):
    logits = torch.randn(300, 7, 5, generator=torch.Generator().manual_seed(0)).double() * 2
    probs = logits.softmax(dim=2)
    expected = torch.special.entr(probs.mean(dim=1)).sum(dim=1) - torch.special.entr(probs).sum(dim=2).mean(dim=1)
    torch.testing.assert_close(disagreements(logits.to(device)).cpu(), expected)


def test_small_disagreements_keep_their_digits(device):
    """Two passes at gaps 40 and 41: the difference of two entropies would be rounding."""
    result = disagreements(torch.tensor([[[40.0, 0.0], [41.0, 0.0]]], device=device)).item()
    p, q = math.exp(-40), math.exp(-41)
    mean = (p + q) / 2
    # the larger class adds less by a factor of p
    expected = (p * math.log(p / mean) + q * math.log(q / mean)) / 2
    assert result == pytest.approx(expected, rel=1e-6)


def test_logits_without_bounds_give_numbers(device):
    """The released code takes log(0)."""
    result = disagreements(torch.tensor([[[3e4, 0.0], [0.0, 3e4]]], device=device))
    assert result.item() == pytest.approx(math.log(2))


def test_one_class_is_too_few_to_compare():
    strategy = strategies.load("bald")
    with pytest.raises(InputError, match="two classes are needed"):
        strategy.score(Features(torch.arange(1), mc_logits_nTK=torch.ones(1, 3, 1)), strategy.prepare(NONE, HEAD, 0))


def test_the_scores_and_the_choice_are_those_of_scikit_activeml(device):
    """Theirs is entropy of the mean less mean entropy of an ensemble; each pass is one of its members."""
    pool_module = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    logits = 2 * torch.randn(200, 6, 5, generator=torch.Generator().manual_seed(3))
    probs = logits.double().softmax(dim=2).transpose(0, 1).numpy()
    reference = torch.from_numpy(pool_module.batch_bald(probs, batch_size=1, random_state=0)[0])
    strategy = strategies.load("bald")
    pool = Features(torch.arange(200, device=device), mc_logits_nTK=logits.to(device))
    scores = strategy.score(pool, strategy.prepare(NONE, HEAD, 0))
    torch.testing.assert_close(scores.scores_n.cpu().double(), reference, rtol=1e-5, atol=1e-7)
    result = strategy.select(scores, strategy.prepare(NONE, HEAD, 0), 30, torch.Generator())
    assert torch.equal(result.cpu(), reference.sort(descending=True, stable=True).indices[:30])
