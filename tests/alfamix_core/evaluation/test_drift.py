import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.evaluation.drift import Moments, ShardSums, distance, shares, total


def pairwise(new_nD, labelled_mD):
    """Gretton et al., equation 3, with the inner product as kernel: three means over pairs."""
    same_new = [float(a @ b) for i, a in enumerate(new_nD) for j, b in enumerate(new_nD) if i != j]
    same_labelled = [float(a @ b) for i, a in enumerate(labelled_mD) for j, b in enumerate(labelled_mD) if i != j]
    across = [float(a @ b) for a in new_nD for b in labelled_mD]
    return sum(same_new) / len(same_new) + sum(same_labelled) / len(same_labelled) - 2 * sum(across) / len(across)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99), st.floats(0, 3))
def test_it_is_the_estimate_over_all_pairs(new, labelled, seed, shift):
    generator = torch.Generator().manual_seed(seed)
    new_nD = torch.randn(new, 3, generator=generator, dtype=torch.float64) + shift
    labelled_mD = torch.randn(labelled, 3, generator=generator, dtype=torch.float64)
    squared = max(0.0, pairwise(new_nD, labelled_mD)) / float(labelled_mD.var(dim=0).sum())
    assert distance(Moments.of(new_nD), Moments.of(labelled_mD)) == pytest.approx(squared**0.5, abs=2e-6)


def test_by_hand():
    """Labelled at ±1 (variance 2), new at 4 and 6 (mean 5, variance 2): √((25 - 1 - 1) / 2)."""
    new, labelled = torch.tensor([[4.0], [6.0]]), torch.tensor([[-1.0], [1.0]])
    assert distance(Moments.of(new), Moments.of(labelled)) == pytest.approx((23 / 2) ** 0.5, abs=1e-6)


def test_samples_of_the_same_kind_are_no_drift_however_few():
    generator = torch.Generator().manual_seed(0)
    found = [
        distance(
            Moments.of(torch.randn(5, 64, generator=generator)), Moments.of(torch.randn(500, 64, generator=generator))
        )
        for _ in range(50)
    ]
    assert sum(found) / len(found) < 0.15  # the distance of the plain means would be 0.45


@pytest.mark.parametrize(("new", "labelled"), [(0, 5), (1, 5), (5, 0), (5, 1)])
def test_too_few_samples_have_no_distance(new, labelled):
    assert distance(Moments.of(torch.randn(new, 3)), Moments.of(torch.randn(labelled, 3))) is None


def test_labelled_samples_without_spread_are_no_unit():
    assert distance(Moments.of(torch.randn(4, 3)), Moments.of(torch.ones(4, 3))) is None


def test_shards_add_up_to_the_pool_in_files_too():
    generator = torch.Generator().manual_seed(1)
    embeddings, logits = torch.randn(20, 3, generator=generator), torch.randn(20, 4, generator=generator)
    new = torch.rand(20, generator=generator) < 0.5
    whole = ShardSums.of(embeddings, logits, new)
    parts = [ShardSums.of(embeddings[rows], logits[rows], new[rows]) for rows in (slice(7), slice(7, 7), slice(7, 20))]
    added = total(ShardSums.from_tensors(part.to_tensors()) for part in [ShardSums.empty(3, 4), *parts])
    assert added.new.count == int(new.sum())
    torch.testing.assert_close(added.new.sum_D, whole.new.sum_D)
    assert added.new.squares == pytest.approx(whole.new.squares)
    assert added.predicted_K.tolist() == [int((logits.argmax(dim=1) == k).sum()) for k in range(4)]


def test_shares():
    assert shares(torch.tensor([3, 0, 1])) == [0.75, 0, 0.25]
    assert shares(torch.tensor([0, 0])) == []
