import pytest
import torch

from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.k_centre import farthest_first
from alfamix_core.acquisition.points import Euclidean
from alfamix_core.acquisition.precision import true_float32


def settings():
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
    )


@pytest.fixture(params=["highest", "high", "medium"])
def allowed(request):
    before = settings()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before[0])


def test_the_settings_are_true_float32_within_and_as_before_after(allowed):
    before = settings()
    with true_float32():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    assert settings() == before
    with pytest.raises(KeyError), true_float32():
        raise KeyError
    assert settings() == before


def test_products_are_those_of_true_float32(device, allowed):
    """1 + 2^-20 has 21 bits: neither TF32 nor bfloat16 holds it."""
    ones = torch.ones(64, 64, device=device)
    with true_float32():
        assert torch.equal((ones + 2.0**-20) @ torch.eye(64, device=device), ones + 2.0**-20)


def test_bounds_hold_whatever_is_allowed(device, allowed):
    """Rows closer than TF32 can tell, far from the origin of their centre."""
    before = settings()
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 48, generator=random)
    rows[300:] = rows[:300] + 1e-4 * torch.randn(300, 48, generator=random)
    mine, others = Euclidean(rows[:300].to(device)), Euclidean(rows[300:].to(device))
    exact = (rows[:300, None].double() - rows[None, 300:].double()).square().sum(dim=2)
    least_mn, slack_n = mine._least(others)
    least_nm = least_mn.T.cpu().double()
    assert (least_nm <= exact).all()
    assert (exact <= least_nm + slack_n.cpu()[:, None]).all()
    infinite = torch.full((600,), torch.inf, dtype=torch.float64)
    picks = farthest_first(Euclidean(rows.to(device)), infinite.to(device), torch.arange(600, device=device), 400, 0)
    with true_float32():
        assert picks.tolist() == farthest_first(Euclidean(rows), infinite, torch.arange(600), 400, 0).tolist()
    assert settings() == before


def test_clusters_are_those_of_true_float32(device, allowed):
    """Heaps closer than TF32 can tell, about a far origin; wide rows, which start from a sketch."""
    before = settings()
    random = torch.Generator().manual_seed(0)
    groups = torch.randn(20, 160, generator=random)
    rows = (groups[torch.randint(20, (300,), generator=random)] + 1e-3 * torch.randn(300, 160, generator=random)).to(
        device
    )
    positions = torch.arange(300, device=device)
    result = kmeans(rows, positions, 30, 0)
    assert settings() == before
    with true_float32():
        expected = kmeans(rows, positions, 30, 0)
    assert torch.equal(result.owner_n, expected.owner_n)
    assert torch.equal(result.centres_BD, expected.centres_BD)
