"""Ratios of a confusion matrix, by hand."""

import pytest

from alfamix_core.reports.confusion import accuracy_interval, class_scores, mistakes, mistakes_page

CLASSES = ("cat", "dog", "owl")
MATRIX = ((8, 2, 0), (1, 3, 0), (0, 0, 0))


def test_precision_recall_and_f1_by_hand():
    """Cat: 8 of 9 predictions right, 8 of 10 labels found, F1 = 16/19."""
    cat = class_scores(CLASSES, MATRIX)[0]
    assert (cat.support, cat.predicted) == (10, 9)
    assert (cat.precision, cat.recall, cat.f1) == pytest.approx((8 / 9, 0.8, 16 / 19))


def test_class_that_is_neither_labelled_nor_predicted_has_no_ratio():
    owl = class_scores(CLASSES, MATRIX)[2]
    assert (owl.precision, owl.recall, owl.f1) == (None, None, None)


def test_mistakes_are_the_most_frequent_first():
    assert [(m.label, m.prediction, m.count, m.share) for m in mistakes(CLASSES, MATRIX)] == [
        ("cat", "dog", 2, 0.2),
        ("dog", "cat", 1, 0.25),
    ]


def test_interval_by_hand():
    """Wilson for 5 of 10: 0.5 ± 0.2634."""
    assert accuracy_interval(((5, 5), (0, 0))) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_interval_of_a_perfect_model_is_not_a_point():
    low, high = accuracy_interval(((10, 0), (0, 10)))
    assert low == pytest.approx(0.8389, abs=1e-4)
    assert high == pytest.approx(1)


def test_no_sample_no_interval():
    assert accuracy_interval(()) is None


def test_the_page_of_mistakes_has_the_worst_first_and_ends():
    """Of a: 3 right, 1 taken for b|c. Of b|c: 2 right, 2 taken for a."""
    page = mistakes_page(("a", "b|c"), ((3, 1), (2, 2)))
    assert page.splitlines()[2:] == [
        "| label | taken for | samples | share of the label |",
        "|---|---|---:|---:|",
        "| b\\|c | a | 2 | 50.0% |",
        "| a | b\\|c | 1 | 25.0% |",
    ]
    assert mistakes_page(("a", "b|c"), ((3, 1), (2, 2)), most=1).count("\n") == 5
    assert mistakes_page(("a", "b"), ()).startswith("No mistakes")
