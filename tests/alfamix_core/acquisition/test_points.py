import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.points import Distributions, Euclidean, Gradients, lower, lower_bounds, to_nearest


def rows(n, X, seed=0, scale=1.0):
    return scale * torch.randn(n, X, generator=torch.Generator().manual_seed(seed))


def test_euclidean_distances_are_squares(device):
    """A triangle of sides 3, 4 and 5."""
    points = Euclidean(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], device=device))
    assert points.distances(points).tolist() == [[0, 9, 16], [9, 0, 25], [16, 25, 0]]


def test_copies_far_from_the_origin_are_at_distance_zero(device):
    here = (rows(50, 30) + 1e4).to(device)
    assert (Euclidean(here).distances(Euclidean(here.clone())).diagonal() == 0).all()


def test_divergence_by_hand(device):
    """(.5, .5) against (.9, .1): ½ (.4 ln(.9/.5) + .4 ln(.5/.1)) = 0.439445."""
    points = Distributions(torch.tensor([[0.5, 0.5], [0.9, 0.1]], device=device).log())
    assert points.distances(points).flatten().tolist() == pytest.approx([0, 0.439445, 0.439445, 0], abs=1e-6)


def test_divergences_of_any_confidence_are_finite_and_not_negative(device):
    points = Distributions(rows(60, 7, scale=1000).to(device))
    result = points.distances(points)
    assert result.isfinite().all()
    assert (result >= 0).all()
    assert torch.equal(points.from_each(points), torch.zeros(60, dtype=torch.float64, device=device))


def test_gradients_are_those_of_the_loss(device):
    """Against the outer products, formed."""
    logits, embeddings = rows(40, 6, scale=3).double(), rows(40, 9, seed=1).double()
    weight = torch.zeros(40, 6, 9, dtype=torch.float64)
    pull = logits.softmax(dim=1)
    pull[torch.arange(40), logits.argmax(dim=1)] -= 1
    weight = (pull[:, :, None] * embeddings[:, None, :]).flatten(1)
    points = Gradients(logits.to(device), embeddings.to(device))
    torch.testing.assert_close(points.squares().cpu(), weight.square().sum(dim=1))
    expected = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").square()
    torch.testing.assert_close(points.distances(points).cpu(), expected, atol=1e-9, rtol=1e-9)


def test_gradients_of_confident_samples_keep_their_digits(device):
    """Two classes at a gap of 50: p_y is 1 in float64; q = (-1, 1) e^-50."""
    points = Gradients(*torch.tensor([[[50.0, 0.0]], [[1.0, 0.0]]], device=device))
    assert points.squares().item() == pytest.approx(2 * torch.tensor(-100.0).double().exp().item(), rel=1e-9)


@pytest.mark.parametrize("m", [0, 1, 700])
def test_the_nearest_of_many_others(device, m):
    here, others = Euclidean(rows(30, 4).to(device)), Euclidean(rows(m, 4, seed=2).to(device))
    expected = here.distances(others).amin(dim=1) if m else here.rows_nD.new_full((30,), torch.inf).double()
    assert torch.equal(to_nearest(here, others), expected)


def test_a_pass_lowers_and_never_raises(device):
    points = Euclidean(rows(10_000, 3).to(device))
    nearest = torch.full((10_000,), 0.5, dtype=torch.float64, device=device)
    lower(points, nearest, points.take(torch.tensor([7, 9], device=device)))
    expected = points.distances(points.take(torch.tensor([7, 9], device=device))).amin(dim=1).clamp(max=0.5)
    torch.testing.assert_close(nearest, expected, atol=1e-12, rtol=0)


def hard(kind, n, D, random):
    """Rows that float32 products tell apart badly or not at all."""
    here = torch.randn(n, D, generator=random, dtype=torch.float64)
    if kind == "offset":
        return (here + 1000).float()
    if kind == "copies":
        return here[torch.randint(max(n // 4, 1), (n,), generator=random)].float()
    if kind == "near copies":
        return here[:1] + 1e-9 * here
    if kind == "grid":
        return here.round().half()
    if kind == "tiny":
        return here * 1e-22
    if kind == "huge":
        return here * 1e25
    if kind == "mixed":
        return (here * 10.0 ** torch.randint(-20, 21, (n, 1), generator=random)).float()
    return here.float()


HARD = ["plain", "offset", "copies", "near copies", "grid", "tiny", "huge", "mixed"]


def by_pairs(rows, others):
    """Every difference, in float64."""
    return (rows.double()[:, None] - others.double()).square().sum(dim=2)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(HARD), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_bounds_hold_and_decide_nothing_that_is_not_computed(kind, n, m, D, seed):
    both = hard(kind, n + m, D, torch.Generator().manual_seed(seed))
    points, others, expected = Euclidean(both[:n]), Euclidean(both[n:]), by_pairs(both[:n], both[n:])
    assert torch.equal(points.distances(others), expected)
    assert torch.equal(to_nearest(points, others), expected.amin(dim=1))
    for rows in (points, points.for_passes()):
        bounds = torch.full((n,), torch.inf, dtype=torch.float64)
        lower_bounds(rows, bounds, others)
        assert (bounds >= expected.amin(dim=1)).all()


def test_bounds_of_ordinary_rows_are_close(device):
    points = Euclidean(rows(500, 64).to(device) + 1000).for_passes()
    others = points.take(torch.arange(20, 30, device=device))
    assert (points.at_most(others) - to_nearest(points, others)).max() < 5e-3


@pytest.mark.parametrize("kind", HARD)
def test_the_nearest_does_not_depend_on_where_the_pool_is_cut(kind):
    both = hard(kind, 340, 33, torch.Generator().manual_seed(1))
    others = Euclidean(both[300:])
    whole = to_nearest(Euclidean(both[:300]), others)
    assert torch.equal(whole, torch.cat([to_nearest(Euclidean(part), others) for part in both[:300].split(7)]))
