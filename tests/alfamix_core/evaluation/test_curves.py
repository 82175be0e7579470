import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.evaluation.curves import LearningCurve, area, labels_needed, mean_accuracy

BY_HAND = LearningCurve((100, 200, 300), (0.5, 0.7, 0.8))


def test_area_by_hand():
    """(100 x 0.6 + 100 x 0.75) / 200 = 0.675."""
    assert area(BY_HAND) == pytest.approx(0.675)


def test_area_weighs_rounds_by_their_labels_and_the_mean_does_not():
    curve = LearningCurve((10, 20, 120), (0.0, 1.0, 1.0))
    assert area(curve) == pytest.approx((5 + 100) / 110)
    assert mean_accuracy(curve) == pytest.approx(2 / 3)


def test_the_area_of_one_point_is_its_accuracy():
    assert area(LearningCurve((50,), (0.4,))) == 0.4


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(1, 1000))
def test_the_area_lies_between_the_worst_and_the_best_accuracy(accuracies, step):
    curve = LearningCurve(tuple(step * (place + 1) for place in range(len(accuracies))), tuple(accuracies))
    assert min(accuracies) - 1e-9 <= area(curve) <= max(accuracies) + 1e-9


def test_points_may_come_in_any_order():
    assert LearningCurve.of({300: 0.8, 100: 0.5, 200: 0.7}) == BY_HAND


def test_labels_needed_lie_on_straight_lines():
    assert labels_needed(BY_HAND, 0.6) == pytest.approx(150)
    assert labels_needed(BY_HAND, 0.75) == pytest.approx(250)
    assert labels_needed(BY_HAND, 0.8) == 300


def test_an_accuracy_that_the_first_round_has_needs_the_first_labels():
    assert labels_needed(BY_HAND, 0.3) == 100


def test_an_accuracy_that_is_never_reached_has_no_label_count():
    assert labels_needed(BY_HAND, 0.81) is None


def test_the_first_time_counts_when_a_curve_falls_again():
    assert labels_needed(LearningCurve((10, 20, 30, 40), (0.0, 0.8, 0.2, 0.9)), 0.8) == 20


@pytest.mark.parametrize(
    ("labels", "accuracies"), [((), ()), ((1, 2), (0.5,)), ((2, 1), (0.5, 0.6)), ((1, 1), (0.5, 0.6))]
)
def test_a_curve_needs_ascending_labels_with_an_accuracy_each(labels, accuracies):
    with pytest.raises(InputError, match="a learning curve"):
        LearningCurve(labels, accuracies)


def test_curves_need_no_torch():
    program = "import sys, alfamix_core.evaluation.curves; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
