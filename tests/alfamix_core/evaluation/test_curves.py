import subprocess
import sys

import pytest

from alfamix_core.errors import InputError
from alfamix_core.evaluation.curves import LearningCurve, mean_accuracy

BY_HAND = LearningCurve((100, 200, 300), (0.5, 0.7, 0.8))


def test_every_round_has_the_same_weight_in_the_mean():
    assert mean_accuracy(LearningCurve((10, 20, 120), (0.0, 1.0, 1.0))) == pytest.approx(2 / 3)


def test_points_may_come_in_any_order():
    assert LearningCurve.of({300: 0.8, 100: 0.5, 200: 0.7}) == BY_HAND


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
