import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError

HEAD = LinearHead(torch.eye(2), torch.zeros(2))


def choose(device, probs, labelled, need):
    strategy = strategies.load("cdal")
    logits = torch.tensor(labelled, device=device).reshape(-1, 2).log()
    labels = torch.zeros(len(logits), dtype=torch.int64, device=device)
    state = strategy.prepare(Labelled(torch.zeros(len(logits), 1, device=device), logits, labels), HEAD, 0)
    pool = Features(torch.arange(len(probs), device=device), None, torch.tensor(probs, device=device).log())
    scores = strategy.score(pool, state)
    return scores.scores_n, strategy.select(scores, state, need, torch.Generator().manual_seed(0)).tolist()


def test_two_classes_by_hand(device):
    """½ (.4 ln 1.8 + .4 ln 5) = 0.439445 from (.5, .5) to (.9, .1); as far to (.1, .9), on the other side."""
    scores, result = choose(device, [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], [0.89, 0.11]], [[0.5, 0.5]], 4)
    assert scores.tolist() == pytest.approx([0, 0.439445, 0.439445, 0.407703], abs=1e-5)
    assert result[:2] == [1, 2]
    assert result[2:] == [3, 0]


def test_probabilities_that_round_to_one_are_told_apart(device):
    """Gaps of 60 and 80. The released code takes distances of a softmax of a softmax, where they are one."""
    strategy = strategies.load("cdal")
    logits = torch.tensor([[60.0, 0.0], [80.0, 0.0]], device=device)
    labelled = Labelled(torch.zeros(1, 1, device=device), logits[:1], torch.tensor([0], device=device))
    pool = Features(torch.arange(2, device=device), None, logits)
    result = strategy.score(pool, strategy.prepare(labelled, HEAD, 0)).scores_n
    assert result[0] == 0
    assert result[1].item() == pytest.approx(10 * math.exp(-60), rel=1e-5)


def test_without_labels_the_seed_decides_the_first(device):
    logits = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    strategy = strategies.load("cdal")
    logits = logits.to(device)
    none = Labelled(logits[:0, :1], logits[:0], torch.zeros(0, dtype=torch.int64, device=device))
    state = strategy.prepare(none, HEAD, 0)
    scores = strategy.score(Features(torch.arange(30, device=device), None, logits), state)
    assert (scores.scores_n == 0).all()
    firsts = {int(strategy.select(scores, state, 2, torch.Generator().manual_seed(s))[0]) for s in range(20)}
    assert len(firsts) > 5


def test_one_class_is_too_few_to_compare():
    strategy = strategies.load("cdal")
    one = Labelled(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="two classes are needed"):
        strategy.score(Features(torch.arange(1), None, torch.ones(1, 1)), strategy.prepare(one, HEAD, 0))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6))
def test_the_choice_is_that_of_a_loop_over_all_divergences(n, L, K, seed):
    random = torch.Generator().manual_seed(seed)
    pool, labelled = 3 * torch.randn(n, K, generator=random), 3 * torch.randn(L, K, generator=random)

    def divergences(logits, other):
        p, q = logits.double().softmax(dim=1), other.double().softmax(dim=0)
        return ((p - q) * (p.log() - q.log())).sum(dim=1) / 2

    nearest = torch.stack([divergences(pool, row) for row in labelled]).amin(dim=0)
    expected = []
    for _ in range(n):
        expected.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, divergences(pool, pool[expected[-1]]))
        nearest[expected] = -1
    strategy = strategies.load("cdal")
    state = strategy.prepare(Labelled(torch.zeros(L, 1), labelled, torch.zeros(L, dtype=torch.int64)), HEAD, 0)
    scores = strategy.score(Features(torch.arange(n), None, pool), state)
    assert strategy.select(scores, state, n, torch.Generator().manual_seed(0)).tolist() == expected
