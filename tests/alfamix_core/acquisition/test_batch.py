import pytest
import torch

from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.constraints import AtMost


def batch(need, device="cpu", **limits):
    """Five samples at positions 0, 10, … of the groups 0 0 1 1 2."""
    rule = AtMost(torch.tensor([0, 0, 1, 1, 2]), {int(name[1:]): limit for name, limit in limits.items()}, "group")
    return Batch(need, torch.arange(5, device=device) * 10, [rule])


def test_a_sample_joins_if_the_rules_accept_it(device):
    result = batch(3, device, g0=1)
    assert [result.offer(0), result.offer(10), result.offer(40)] == [True, False, True]
    assert (result.taken, result.missing, result.refused) == ([0, 40], 1, 1)
    assert result.refusals() == ["at most 1 of a group"]


def test_samples_are_offered_in_order_until_the_batch_is_full(device):
    result = batch(2, device, g1=0)
    result.offer_all(torch.tensor([30, 40, 20, 0, 10], device=device))
    assert result.taken == [40, 0]
    assert result.untouched(torch.tensor([0, 10, 20, 30, 40], device=device)).tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]
    assert result.open(torch.tensor([40, 30, 10], device=device)).tolist() == [True, False, True]


def test_the_first_that_is_accepted_joins_and_those_behind_it_are_not_offered():
    result = batch(2, g0=0)
    assert result.offer_first([0, 10, 20, 30]) == 20
    assert result.untouched(torch.tensor([30])).item()
    assert result.offer_first([]) is None


def test_a_sample_is_offered_once_and_never_to_a_full_batch():
    result = batch(2)
    result.offer(0)
    with pytest.raises(AssertionError, match="position 0 is offered for the second time"):
        result.offer(0)
    result.offer(10)
    with pytest.raises(AssertionError, match="the batch is full"):
        result.offer(20)


def test_rows_of_a_loop_are_offered_by_their_positions():
    result = batch(2, g1=0)
    accept = result.by_row(torch.tensor([20, 40]))
    assert [accept(0), accept(1)] == [False, True]
    assert result.taken == [40]


def test_rules_know_a_sample_by_the_index_that_is_given():
    rule = AtMost(torch.tensor([7, 8, 9]), {8: 0}, "group")
    result = Batch(2, torch.tensor([5, 6]), [rule], torch.tensor([1, 2]))
    assert [result.offer(5), result.offer(6)] == [False, True]
