import pytest
import torch

from alfamix_core.learning.scaling import fitted, scaled


def test_l2_rows_by_hand():
    """(3, 4) has length 5; a row of zeros has no direction and stays."""
    rows = scaled(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), fitted("l2", torch.zeros(0, 2)))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


def test_standardised_columns_by_hand():
    """1 and 5 have mean 3 and deviation 2; a column that does not vary is only moved."""
    found = fitted("standardised", torch.tensor([[1.0, 7.0], [5.0, 7.0]]))
    assert (found.mean, found.std) == ((3.0, 7.0), (2.0, 1.0))
    assert scaled(torch.tensor([[7.0, 8.0]]), found).tolist() == [[2.0, 1.0]]


def test_raw_features_are_the_encoders_output():
    assert fitted("raw", torch.ones(2, 2)) is None
    assert scaled(torch.ones(2, 2), None).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_without_a_sample_nothing_is_moved():
    found = fitted("standardised", torch.zeros(0, 2))
    assert scaled(torch.tensor([[7.0, 8.0]]), found).tolist() == [[7.0, 8.0]]
