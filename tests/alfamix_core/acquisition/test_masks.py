import pytest
import torch

from alfamix_core.acquisition import masks


@pytest.mark.parametrize("dropout", [0.25, 0.75])
def test_as_many_elements_survive_as_asked(device, dropout):
    kept = masks.kept(3, torch.arange(4000, device=device), 64, dropout)
    assert kept.shape == (4000, 64)
    assert kept.device.type == device.type
    assert float(kept.double().mean()) == pytest.approx(1 - dropout, abs=0.005)
    assert float(kept.double().mean(dim=0).std()) < 0.01


def test_the_mask_of_a_position_does_not_depend_on_the_others(device):
    whole = masks.kept(3, torch.arange(1000, device=device), 16, 0.5)
    some = torch.tensor([0, 3, 255, 256, 700, 701, 999], device=device)
    assert torch.equal(masks.kept(3, some, 16, 0.5), whole[some])
    assert torch.equal(masks.kept(3, torch.arange(100, 613, device=device), 16, 0.5), whole[100:613])


def test_another_key_gives_another_mask_and_no_position_no_row():
    positions = torch.arange(300)
    assert not torch.equal(masks.kept(3, positions, 16, 0.5), masks.kept(4, positions, 16, 0.5))
    assert not torch.equal(masks.kept(3, positions, 16, 0.5)[:44], masks.kept(3, positions, 16, 0.5)[256:])
    assert masks.kept(3, positions[:0], 16, 0.5).shape == (0, 16)
