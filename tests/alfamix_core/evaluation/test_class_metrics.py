"""Ratios of a confusion matrix, by hand."""

import pytest

from alfamix_core.evaluation.class_metrics import class_metrics

CAT, DOG, OWL = class_metrics(((8, 2, 0), (1, 3, 0), (0, 0, 0)))


def test_precision_recall_and_f1_by_hand():
    """Cat: 8 of 9 predictions right, 8 of 10 labels found, F1 = 16/19."""
    assert (CAT.support, CAT.predicted) == (10, 9)
    assert (CAT.precision, CAT.recall, CAT.f1) == pytest.approx((8 / 9, 0.8, 16 / 19))
    assert (DOG.precision, DOG.recall) == pytest.approx((3 / 5, 3 / 4))


def test_a_class_that_is_neither_labelled_nor_predicted_counts_as_0():
    assert (OWL.support, OWL.predicted, OWL.precision, OWL.recall, OWL.f1) == (0, 0, 0, 0, 0)


def test_without_a_matrix_there_is_no_class():
    assert class_metrics(()) == ()
