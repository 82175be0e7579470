import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import k_centre, noise
from alfamix_core.acquisition.points import Distributions, Euclidean


def by_loop(points, nearest, positions, count, seed):
    """One pass over all rows a pick."""
    nearest = nearest.clone()
    picks = []
    for _ in range(count):
        if nearest.isinf().all():
            best = int(noise.uniform(noise.fold(seed, noise.K_CENTRE_START), positions).argmin())
        else:
            best = int(nearest.argmax())
        picks.append(best)
        nearest = torch.minimum(nearest, points.distances(points.take(torch.tensor([best])))[:, 0])
        nearest[picks] = -1
    return picks


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("kind", [Euclidean, Distributions])
@pytest.mark.parametrize("count", [0, 1, 5, 150, 700])
def test_the_picks_are_those_of_a_pass_each(device, kind, labelled, count):
    random = torch.Generator().manual_seed(0)
    rows = 3 * torch.randn(700, 5, generator=random)
    nearest = kind(rows).distances(kind(torch.randn(1, 5, generator=random)))[:, 0]
    nearest = nearest if labelled else torch.full_like(nearest, torch.inf)
    positions = torch.arange(700) * 3
    result = k_centre.farthest_first(kind(rows.to(device)), nearest.to(device), positions.to(device), count, 4)
    assert result.tolist() == by_loop(kind(rows), nearest, positions, count, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(1, 3), st.sampled_from([1, 2, 8, 256]), st.data())
def test_ties_and_duplicates_go_by_position(seed, n, D, candidates, data):
    """Rows on a grid: the most of ties; whole numbers leave no rounding. Few candidates a pass change no pick."""
    count = data.draw(st.integers(0, n))
    rows = torch.randint(4, (n, D), generator=torch.Generator().manual_seed(seed)).float()
    nearest, positions = torch.full((n,), torch.inf, dtype=torch.float64), torch.arange(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(k_centre, "_CANDIDATES", candidates)
        result = k_centre.farthest_first(Euclidean(rows), nearest, positions, count, seed).tolist()
    assert len(set(result)) == count
    assert result == by_loop(Euclidean(rows), nearest, positions, count, seed)


def test_many_picks_take_few_passes(monkeypatch):
    passes = []
    lower_bounds = k_centre.lower_bounds
    monkeypatch.setattr(k_centre, "lower_bounds", lambda *arguments: passes.append(1) or lower_bounds(*arguments))
    rows = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
    nearest = rows.square().sum(dim=1).double()
    k_centre.farthest_first(Euclidean(rows), nearest, torch.arange(3000), 300, 0)
    assert len(passes) <= 12


def test_the_distances_that_were_given_are_not_changed(device):
    nearest = torch.full((5,), torch.inf, dtype=torch.float64, device=device)
    k_centre.farthest_first(Euclidean(torch.eye(5, device=device)), nearest, torch.arange(5, device=device), 3, 0)
    assert nearest.isinf().all()


def by_differences(rows, nearest, positions, count, seed):
    """One pass a pick, every distance the float64 sum of squared differences."""
    rows, nearest, picks = rows.double(), nearest.clone(), []
    for _ in range(count):
        if nearest.isinf().all():
            picks.append(int(noise.uniform(noise.fold(seed, noise.K_CENTRE_START), positions).argmin()))
        else:
            picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (rows - rows[picks[-1]]).square().sum(dim=1))
        nearest[picks] = -1
    return picks


def offset(here):
    return (here + 1000).float()


def copies(here):
    return here[torch.arange(len(here)) // 5].float()


def near_ties(here):
    """All at one distance from each other up to 1e-7: float32 products do not order them."""
    return torch.eye(len(here), dtype=torch.float64) + 1e-7 * torch.nn.functional.pad(here, (0, len(here) - 6))


def ties(here):
    return torch.eye(len(here))


def heavy_tails(here):
    return here / here[:, :1].square()


@pytest.mark.parametrize("change", [offset, copies, near_ties, ties, heavy_tails])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_picks_of_hard_rows_are_those_of_differences(change, labelled):
    here = change(torch.randn(401, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    nearest = torch.full((400,), torch.inf, dtype=torch.float64)
    if labelled:
        nearest = (here[:400].double() - here[400].double()).square().sum(dim=1)
    for count in (90, 400):
        result = k_centre.farthest_first(Euclidean(here[:400]), nearest, torch.arange(400), count, 3).tolist()
        assert result == by_differences(here[:400], nearest, torch.arange(400), count, 3)
