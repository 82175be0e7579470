"""The stand-in must refuse what CUDA refuses, or tests on it say nothing."""

import pytest
import torch

from alfamix_core.acquisition import noise
from tests.alfamix_core.acquisition import stand_in


@pytest.fixture
def there():
    return stand_in.device()


def test_tensors_of_two_devices_do_not_mix(there):
    rows, here = torch.arange(12.0, device=there).reshape(3, 4), torch.ones(3, 4)
    mixtures = [
        lambda: rows + here,
        lambda: torch.cat([here, rows]),
        lambda: rows @ here.T,
        lambda: rows.index_add_(0, torch.tensor([0, 1, 2]), rows),
        lambda: torch.searchsorted(rows[0], here[0]),
        lambda: here[torch.tensor([0], device=there)],
        lambda: rows.__setitem__(torch.tensor([0, 1], device=there), here[:2]),
        lambda: torch.tensor(1.0).add_(rows.sum()),
        lambda: torch.equal(rows, here),
    ]
    for mixture in mixtures:
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            mixture()


def test_what_cuda_lets_pass_passes(there):
    """One number of the CPU, an index of the CPU, and a copy across."""
    rows = torch.arange(12.0, device=there).reshape(3, 4)
    assert (rows + torch.tensor(1.0)).tolist()[0] == [1, 2, 3, 4]
    assert rows[torch.tensor([2])].tolist() == rows[[2]].tolist() == [[8, 9, 10, 11]]
    rows[1] = torch.zeros(4)
    assert rows.cpu()[1].numpy().tolist() == [0] * 4
    assert torch.zeros(3, 4).copy_(rows).device.type == "cpu"
    assert (int(rows[0, 1]), float(rows.max()), bool(rows.any()), rows[0, 3].item()) == (1, 11.0, True, 3.0)


def test_views_share_their_memory(there):
    rows = torch.zeros(3, 4, device=there)
    rows[:, 1].add_(1)
    rows[0:2][:, 2:] = 7
    rows[rows == 7] = 8
    assert rows.tolist() == [[0, 1, 8, 8], [0, 1, 8, 8], [0, 1, 0, 0]]
    assert rows[1:].data_ptr() == rows.data_ptr() + 16


def test_results_lie_where_their_arguments_do(there):
    rows = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).to(there)
    made = [rows.new_zeros(2), rows[0] @ rows.T, torch.randperm(3, device=there), torch.tensor([1], device=there)]
    assert all(isinstance(result, stand_in.StandIn) and result.device == there for result in made)
    assert made[1].shape == (3,)
    assert noise.uniform(3, torch.arange(4, device=there)).tolist() == noise.uniform(3, torch.arange(4)).tolist()


def test_gradients_are_those_of_the_cpu(there):
    rows, slopes = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), []
    for target in (torch.device("cpu"), there):
        leaf = rows.to(target).requires_grad_()
        (slope,) = torch.autograd.grad((leaf.softmax(dim=1) * leaf).logsumexp(dim=1).sum(), leaf)
        assert slope.device == target
        slopes.append(slope.cpu())
    assert torch.equal(*slopes)


def test_what_only_the_cpu_can_do_is_refused(there):
    whole = torch.ones(2, 2, dtype=torch.int64, device=there)
    with pytest.raises(TypeError, match="can't convert stand_in device type tensor to numpy"):
        whole.numpy()
    with pytest.raises(RuntimeError, match="expected a generator of stand_in, found one of cpu"):
        torch.rand(3, generator=torch.Generator(), device=there)
    with pytest.raises(RuntimeError, match="not implemented on CUDA for whole numbers"):
        whole @ whole


def test_sums_without_an_order_are_refused_where_determinism_is_asked_for(there):
    values = torch.rand(9, generator=torch.Generator().manual_seed(0)).to(there)
    values.cumsum(dim=0)
    try:
        torch.use_deterministic_algorithms(True)
        assert torch.ones(3, dtype=torch.int64, device=there).cumsum(dim=0).tolist() == [1, 2, 3]
        for call in (lambda: values.cumsum(dim=0), lambda: values.kthvalue(2), lambda: values.median(dim=0)):
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation on CUDA"):
                call()
    finally:
        torch.use_deterministic_algorithms(False)
