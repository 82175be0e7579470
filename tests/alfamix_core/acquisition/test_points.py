import pytest
import torch

from alfamix_core.acquisition.points import Distributions, Euclidean, Gradients, lower, to_nearest


def rows(n, X, seed=0, scale=1.0):
    return scale * torch.randn(n, X, generator=torch.Generator().manual_seed(seed))


def test_euclidean_distances_are_squares(device):
    """A triangle of sides 3, 4 and 5."""
    points = Euclidean(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], device=device))
    assert points.distances(points).tolist() == [[0, 9, 16], [9, 0, 25], [16, 25, 0]]


def test_copies_far_from_the_origin_are_at_distance_zero():
    here = rows(50, 30) + 1e4
    assert (Euclidean(here).distances(Euclidean(here.clone())).diagonal() == 0).all()


def test_divergence_by_hand():
    """(.5, .5) against (.9, .1): ½ (.4 ln(.9/.5) + .4 ln(.5/.1)) = 0.439445."""
    points = Distributions(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log())
    assert points.distances(points).flatten().tolist() == pytest.approx([0, 0.439445, 0.439445, 0], abs=1e-6)


def test_divergences_of_any_confidence_are_finite_and_not_negative():
    points = Distributions(rows(60, 7, scale=1000))
    found = points.distances(points)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert torch.equal(points.from_each(points), torch.zeros(60, dtype=torch.float64))


def test_gradients_are_those_of_the_loss():
    """Against the outer products, formed."""
    logits, embeddings = rows(40, 6, scale=3).double(), rows(40, 9, seed=1).double()
    weight = torch.zeros(40, 6, 9, dtype=torch.float64)
    pull = logits.softmax(dim=1)
    pull[torch.arange(40), logits.argmax(dim=1)] -= 1
    weight = (pull[:, :, None] * embeddings[:, None, :]).flatten(1)
    points = Gradients(logits, embeddings)
    torch.testing.assert_close(points.squares(), weight.square().sum(dim=1))
    expected = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").square()
    torch.testing.assert_close(points.distances(points), expected, atol=1e-9, rtol=1e-9)


def test_gradients_of_confident_samples_keep_their_digits():
    """Two classes at a gap of 50: p_y is 1 in float64; q = (-1, 1) e^-50."""
    points = Gradients(torch.tensor([[50.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert points.squares().item() == pytest.approx(2 * torch.tensor(-100.0).double().exp().item(), rel=1e-9)


@pytest.mark.parametrize("m", [0, 1, 700])
def test_the_nearest_of_many_others(m):
    here, others = Euclidean(rows(30, 4)), Euclidean(rows(m, 4, seed=2))
    expected = here.distances(others).amin(dim=1) if m else torch.full((30,), torch.inf, dtype=torch.float64)
    assert torch.equal(to_nearest(here, others), expected)


def test_a_pass_lowers_and_never_raises():
    points = Euclidean(rows(10_000, 3))
    nearest = torch.full((10_000,), 0.5, dtype=torch.float64)
    lower(points, nearest, points.take(torch.tensor([7, 9])))
    expected = points.distances(points.take(torch.tensor([7, 9]))).amin(dim=1).clamp(max=0.5)
    torch.testing.assert_close(nearest, expected, atol=1e-12, rtol=0)
