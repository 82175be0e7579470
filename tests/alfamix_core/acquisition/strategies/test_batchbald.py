import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.strategies.batchbald import Outcomes, jointly
from alfamix_core.acquisition.types import Features

EXACT = 10**6


def probabilities(seed, n, T, K):
    logits = 2 * torch.randn(n, T, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(dim=2)


def outcomes(T, largest=EXACT):
    return Outcomes(T, largest, torch.Generator().manual_seed(0))


def information(probs_bTK):
    """The entropy of all classes together less the mean over passes, by every joint outcome."""
    b, _, K = probs_bTK.shape
    joint = torch.stack(
        [probs_bTK[range(b), :, list(classes)].prod(dim=0).mean() for classes in itertools.product(range(K), repeat=b)]
    )
    return float(torch.special.entr(joint).sum() - torch.special.entr(probs_bTK).sum(dim=(0, 2)).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 5), st.integers(2, 3), st.integers(1, 4))
def test_the_picks_are_those_of_all_joint_outcomes(seed, n, T, K, count):
    probs = probabilities(seed, n, T, K)
    picks = []
    while len(picks) < min(count, n):
        left = [row for row in range(n) if row not in picks]
        picks.append(max(left, key=lambda row: information(probs[[*picks, row]])))
    assert jointly(probs, outcomes(T), min(count, n)) == picks


def test_two_passes_by_hand():
    """Each sure of one of two classes: the first sample says which pass it is, ln 2; after it, nothing says more."""
    sure, level = torch.eye(2, dtype=torch.float64), torch.full((2, 2), 0.5, dtype=torch.float64)
    probs = torch.stack([level, sure, sure.flip(0)])
    text = outcomes(2)
    assert text.gains(probs).tolist() == pytest.approx([0, math.log(2), math.log(2)])
    text.add(probs[1])
    assert text.gains(probs).tolist() == pytest.approx([0, 0, 0])
    assert text.chances_C.tolist() == [0.5, 0.5]
    assert jointly(probs, outcomes(2), 3) == [1, 0, 2]


def test_drawn_outcomes_say_what_all_outcomes_say_within_sampling_error():
    probs = probabilities(3, 12, 6, 4)
    exact, drawn = outcomes(6), outcomes(6, 20_000)
    for row in range(8):
        exact.add(probs[row])
        drawn.add(probs[row])
    assert len(drawn.chances_C) <= 20_000 < len(exact.chances_C)
    torch.testing.assert_close(drawn.gains(probs[8:]), exact.gains(probs[8:]), rtol=0.05, atol=0.002)


def test_a_copy_is_not_asked_beside_its_original_while_others_say_something(device):
    probs = probabilities(1, 6, 5, 3)
    probs = torch.cat([probs, probs]).float().to(device)
    strategy = strategies.load("batchbald")
    state = strategy.module.prepare(None, None, strategy.tunables, seed=0)
    pool = Features(torch.arange(12, device=device), mc_logits_nTK=probs.log())
    asked = strategy.select(strategy.score(pool, state), state, 3, torch.Generator()).tolist()
    assert len({position % 6 for position in asked}) == 3
    by_bald = strategies.load("bald")
    plain = by_bald.module.prepare(None, None, by_bald.tunables, seed=0)
    first = by_bald.select(by_bald.score(pool, plain), plain, 2, torch.Generator()).tolist()
    assert first[0] % 6 == first[1] % 6
    assert asked[0] == first[0]


def test_the_picks_are_those_of_scikit_activeml():
    """Two picks of three classes, whose outcomes are exact there too; it gives utilities, of picked rows as well."""
    pool_module = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    for seed in range(5):
        probs = probabilities(seed, 40, 6, 3)
        given = probs.transpose(0, 1).numpy().copy()
        utilities = torch.from_numpy(pool_module.batch_bald(given, batch_size=2, n_MC_samples=500, random_state=0))
        first = int(utilities[0].argmax())
        second = int(utilities[1].index_fill(0, torch.tensor(first), -torch.inf).nan_to_num(-torch.inf).argmax())
        assert jointly(probs, outcomes(6), 2) == [first, second]
