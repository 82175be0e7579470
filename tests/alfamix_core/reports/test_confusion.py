"""Ratios of a confusion matrix, by hand."""

import pytest

from alfamix_core.reports.confusion import accuracy_interval, mistakes, mistakes_page

CLASSES = ("cat", "dog", "owl")
MATRIX = ((8, 2, 0), (1, 3, 0), (0, 0, 0))


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
    many = [str(number) for number in range(52)]
    assert mistakes_page(many, [[label != k for k in range(52)] for label in range(52)]).count("\n") == 54
    assert mistakes_page(("a", "b"), ()).startswith("No mistakes")
