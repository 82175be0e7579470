import math

import pytest
import torch

from alfamix_core.acquisition import noise


def test_fold_has_its_known_answer():
    assert noise.fold(0, 0) == 12035550249420947055


def test_bits_have_their_known_answers(device):
    result = noise.bits(noise.fold(0, 0), torch.arange(3, device=device))
    assert [x % 2**64 for x in result.tolist()] == [4328710176121799487, 9451143353636776879, 11404010700143034791]


def test_uniform_has_its_known_answers(device):
    result = noise.uniform(noise.fold(0, 0), torch.arange(4, device=device))
    assert result.tolist() == pytest.approx([0.234660, 0.512348, 0.618213, 0.995847], abs=5e-7)


def test_gumbel_is_minus_log_of_minus_log_of_uniform(device):
    result = noise.gumbel(noise.fold(0, 0), torch.zeros(1, dtype=torch.int64, device=device))
    assert result.item() == pytest.approx(-math.log(-math.log(0.234660)), abs=5e-6)


def test_a_number_belongs_to_its_position_alone(device):
    key = noise.fold(3, 1)
    forwards = noise.uniform(key, torch.arange(1000, device=device))
    alone = torch.cat([noise.uniform(key, torch.tensor([i], device=device)) for i in range(999, -1, -1)])
    assert torch.equal(forwards, alone.flip(0))


def test_uniform_is_uniform():
    result = noise.uniform(noise.fold(1, 2), torch.arange(100_000))
    assert 0 < result.min() < result.max() < 1
    counts = torch.histc(result, 100, 0, 1)
    # 99 degrees of freedom: 148.2 is the 99.9 % point
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 148.2


@pytest.mark.parametrize("other", [(1, 1), (0, 2), (0, 1, 0), (1, 0)])
def test_streams_of_other_seeds_and_purposes_do_not_correlate(other):
    positions = torch.arange(100_000)
    pair = torch.stack([noise.uniform(noise.fold(0, 1), positions), noise.uniform(noise.fold(*other), positions)])
    assert abs(float(pair.corrcoef()[0, 1])) < 0.012


def test_every_purpose_has_its_own_constant():
    purposes = [value for name, value in vars(noise).items() if name.isupper() and not name.startswith("_")]
    assert len(purposes) == len(set(purposes)) >= 4


def test_gumbel_draws_in_proportion_to_the_weights():
    weights = torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64)
    positions = torch.arange(3)
    drawn = [int((weights.log() + noise.gumbel(noise.fold(0, 9, t), positions)).argmax()) for t in range(2000)]
    shares = torch.tensor(drawn).bincount(minlength=3) / 2000
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.7], abs=0.04)


def test_a_seed_is_drawn_from_the_generator_and_from_nothing_else():
    before = torch.random.get_rng_state()
    first, second = (noise.draw_seed(torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_row_of_normals_belongs_to_its_position_alone(device):
    positions = torch.cat([torch.arange(250, 270), torch.tensor([5000])]).to(device)
    whole = noise.normals(noise.fold(3, 1), positions, 7)
    assert whole.shape == (21, 7)
    for rows in (slice(0, 1), slice(5, 9), slice(20, 21), slice(0, 0)):
        assert torch.equal(noise.normals(noise.fold(3, 1), positions[rows], 7), whole[rows])
    assert not torch.equal(noise.normals(noise.fold(3, 2), positions, 7), whole)


def test_normals_are_normal():
    result = noise.normals(noise.fold(0, 1), torch.arange(3000), 20)
    assert abs(float(result.mean())) < 0.02
    assert float(result.std()) == pytest.approx(1, abs=0.02)
    assert len(result.unique()) > 0.99 * result.numel()
