import pytest
import torch

from alfamix_core.acquisition import k_means_pp, noise
from alfamix_core.acquisition.points import Euclidean, Gradients


def by_loop(points, nearest, positions, start, count, key):
    """One pass over all rows a draw."""
    nearest = nearest.clone()
    drawn = []
    for number in range(start, start + count):
        if not (nearest > 0).any():
            break
        best = int((nearest.log() + noise.gumbel(noise.fold(key, number), positions)).argmax())
        drawn.append(best)
        nearest = torch.minimum(nearest, points.distances(points.take(torch.tensor([best])))[:, 0])
        nearest[best] = 0
    return drawn


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_the_draws_are_those_of_a_pass_each(device, count, seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(600, 8, generator=random) * torch.rand(600, 1, generator=random)
    nearest, positions = rows.square().sum(dim=1).double(), torch.arange(600) * 2
    result = k_means_pp.draw(Euclidean(rows.to(device)), nearest.to(device), positions.to(device), 1, count, 77)
    assert result.tolist() == by_loop(Euclidean(rows), nearest, positions, 1, count, 77)


def test_the_draws_of_gradients_are_those_of_a_pass_each(device):
    random = torch.Generator().manual_seed(1)
    logits, rows = 2 * torch.randn(400, 5, generator=random), torch.randn(400, 6, generator=random)
    points, there = Gradients(logits, rows), Gradients(logits.to(device), rows.to(device))
    result = k_means_pp.draw(there, there.squares(), torch.arange(400, device=device), 0, 120, 5)
    assert result.tolist() == by_loop(points, points.squares(), torch.arange(400), 0, 120, 5)


def test_draws_end_when_every_row_coincides_with_one(device):
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device).repeat(30, 1)
    nearest = torch.ones(60, dtype=torch.float64, device=device)
    result = k_means_pp.draw(Euclidean(rows), nearest, torch.arange(60, device=device), 0, 10, 1).tolist()
    assert len(result) == 2
    assert sum(result) % 2 == 1
    assert (nearest == 1).all()


def test_draws_go_by_squared_distance():
    """Rows at squared distance 1, 2 and 7 from the centre, and one on it."""
    nearest = torch.tensor([1.0, 2.0, 7.0, 0.0], dtype=torch.float64)
    rows = nearest.sqrt()[:, None]
    drawn = [int(k_means_pp.draw(Euclidean(rows), nearest, torch.arange(4), 0, 1, key)) for key in range(2000)]
    shares = torch.tensor(drawn).bincount(minlength=4) / 2000
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.7, 0], abs=0.04)


def test_many_draws_take_few_passes(monkeypatch):
    passes = []
    lower = k_means_pp.lower
    monkeypatch.setattr(k_means_pp, "lower", lambda *arguments: passes.append(1) or lower(*arguments))
    rows = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
    k_means_pp.draw(Euclidean(rows), rows.square().sum(dim=1).double(), torch.arange(3000), 0, 300, 0)
    assert len(passes) <= 14
