import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.strategies.probcover import cover, pure_radius
from alfamix_core.acquisition.types import Features, Labelled


def unit(n, D, seed):
    rows = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def on_a_circle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def chord(degrees):
    return 2 * math.sin(math.radians(degrees) / 2)


def chosen(pool, labelled, need, **parameters):
    strategy = strategies.load("probcover", parameters)
    state = strategy.prepare(labelled, None, 0)
    return strategy.select(strategy.score(pool, state), state, need, torch.Generator()).tolist()


def by_a_loop(rows, covered, radius, count):
    """Each time the lowest row whose ball holds most uncovered rows, from a matrix of all distances."""
    near = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") < radius
    covered, picks = covered.clone(), []
    while len(picks) < count:
        left = [int((near[row] & ~covered).sum()) if row not in picks else -1 for row in range(len(rows))]
        if max(left) <= 0:
            break
        picks.append(left.index(max(left)))
        covered |= near[picks[-1]]
    return picks


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5), st.floats(0.1, 1.5), st.integers(1, 20))
def test_the_picks_are_those_of_a_loop_over_all_pairs(seed, n, D, radius, count):
    rows = unit(n, D, seed)
    covered = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.3
    assert cover(rows, covered, radius, count) == by_a_loop(rows, covered, radius, count)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 4), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_the_radius_is_the_largest_at_which_purity_holds(seed, n, clusters, purity):
    rows = unit(n, 3, seed)
    owner = torch.randint(clusters, (n,), generator=torch.Generator().manual_seed(seed))
    radius = pure_radius(rows, owner, purity)

    def pure(radius):
        near = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") < radius
        return float((~(near & (owner[:, None] != owner)).any(dim=1)).double().mean())

    assert pure(radius * (1 - 1e-6) if radius < math.inf else 5.0) >= purity - 1e-9
    assert radius == math.inf or pure(radius * (1 + 1e-6)) < purity


def test_balls_on_a_circle_by_hand(device):
    """At 0, 10, 20, 30, and at 90 and 100 degrees, radius 15: 10 covers 0, 10, 20; then 90 covers two; then 30."""
    pool = Features(torch.arange(6, device=device), on_a_circle(0.0, 10.0, 20.0, 30.0, 90.0, 100.0).to(device))
    nothing = Labelled(torch.zeros(0, 2, device=device), torch.zeros(0, 2, device=device), torch.zeros(0).long())
    assert chosen(pool, nothing, 3, radius=chord(15)) == [1, 4, 2]
    assert chosen(pool, nothing, 6, radius=chord(15)) == [1, 4, 2, 0, 3, 5]
    known = Labelled(on_a_circle(10.0).to(device), torch.zeros(1, 2, device=device), torch.zeros(1).long().to(device))
    assert chosen(pool, known, 2, radius=chord(15)) == [4, 2]


def test_the_purity_of_two_groups_by_hand(device):
    """Heaps at 0 … 30 and 90 … 100: 30 and 90 are 60 apart, so all balls below 60 degrees are pure."""
    rows = on_a_circle(0.0, 10.0, 20.0, 30.0, 90.0, 100.0).to(device)
    owner = torch.tensor([0, 0, 0, 0, 1, 1], device=device)
    assert pure_radius(rows, owner, 1.0) == pytest.approx(chord(60))
    # of six balls, two may be mixed: those of 30 and 90; the next, of 100 and 20, reach 70 degrees
    assert pure_radius(rows, owner, 4 / 6) == pytest.approx(chord(70))


@pytest.mark.filterwarnings("ignore:The maximum purity")
@pytest.mark.parametrize("radius", [0.2, 0.6, 1.0])
def test_the_first_pick_covers_as_many_as_any_does_for_scikit_activeml(make_task, radius):
    """It breaks ties at random, so picks cannot be compared beyond the first."""
    pool_module = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    task = make_task(N=80, L=6)
    rows = torch.cat([task.labelled.embeddings_LD, task.pool.embeddings_nD]).cpu().double()
    rows = torch.nn.functional.normalize(rows, dim=1)
    labels = torch.full((len(rows),), torch.nan)
    labels[:6] = 0
    reference = pool_module.ProbCover(deltas=[radius], random_state=0)
    _, utilities = reference.query(rows.numpy(), labels.numpy(), batch_size=1, return_utilities=True)
    ours = chosen(task.pool, task.labelled, 1, radius=radius)
    best = torch.from_numpy(utilities[0][6:])
    assert float(best[ours[0]]) == float(best.nan_to_num(-1).max())
