import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from alfamix_core.evaluation.metrics import Metrics, measure


def of(logits: list[list[float]], labels: list[int]) -> Metrics:
    metrics = measure(torch.tensor(logits), torch.tensor(labels))
    assert metrics is not None
    return metrics


def sure_of(predictions: list[int], labels: list[int], classes: int) -> Metrics:
    return of((torch.nn.functional.one_hot(torch.tensor(predictions), classes) * 50.0).tolist(), labels)


def test_two_classes_by_hand():
    """Labels 0 0 0 1, predictions 0 0 1 1: class 0 has precision 1, recall 2/3; class 1 has precision 1/2, recall 1."""
    metrics = sure_of([0, 0, 1, 1], [0, 0, 0, 1], 2)
    assert metrics.samples == 4
    assert metrics.accuracy == 0.75
    assert metrics.confusion == ((2, 1), (0, 1))
    first, second = metrics.per_class
    assert (first.precision, first.recall, first.f1, first.support) == pytest.approx((1, 2 / 3, 0.8, 3))
    assert (second.precision, second.recall, second.f1, second.support) == pytest.approx((0.5, 1, 2 / 3, 1))
    assert metrics.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics.expected_calibration_error == pytest.approx(0.25)


def test_a_class_without_samples_is_left_out_of_macro_f1():
    metrics = sure_of([0, 1, 2], [0, 1, 1], 4)
    assert metrics.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert [one.support for one in metrics.per_class] == [1, 2, 0, 0]
    assert metrics.per_class[3].f1 == 0


def test_no_samples_report_nothing():
    assert measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) is None


def test_a_tie_is_predicted_as_the_first_class():
    assert of([[1.0, 1.0, 0.0]], [0]).accuracy == 1


def test_calibration_error_by_hand():
    """Two samples of confidence 0.8, one right, in one bin: |0.8 - 0.5|. Two sure and right ones weigh the same: 0."""
    logit = math.log(4)
    metrics = of([[logit, 0], [logit, 0], [60, 0], [0, 60]], [0, 1, 0, 1])
    assert metrics.expected_calibration_error == pytest.approx(0.5 * 0.3)


def test_a_bin_holds_its_upper_edge():
    """Confidence 1/3 ends bin 5 of 15; with one of three right, it is calibrated there."""
    metrics = of([[0.0, 0.0, 0.0]] * 3, [0, 1, 2])
    assert metrics.expected_calibration_error == pytest.approx(0)


def test_the_summary_is_finite_numbers_by_name():
    summary = sure_of([0, 1], [0, 1], 3).summary()
    assert summary == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "expected_calibration_error": pytest.approx(0),
        "samples": 2.0,
    }


@given(
    st.integers(2, 6).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
        )
    )
)
def test_classes_are_judged_as_scikit_learn_does(case):
    classes, pairs = case
    predictions, labels = [list(column) for column in zip(*pairs, strict=True)]
    metrics = sure_of(predictions, labels, classes)
    names = list(range(classes))
    expected = precision_recall_fscore_support(labels, predictions, labels=names, zero_division=0)
    found = [(one.precision, one.recall, one.f1, one.support) for one in metrics.per_class]
    assert torch.allclose(
        torch.tensor(found, dtype=torch.float64), torch.tensor(list(zip(*expected, strict=True))).double()
    )
    assert metrics.confusion == tuple(map(tuple, confusion_matrix(labels, predictions, labels=names).tolist()))
    _, _, f1, _ = precision_recall_fscore_support(labels, predictions, labels=sorted(set(labels)), zero_division=0)
    assert metrics.macro_f1 == pytest.approx(f1.mean())


def test_calibration_error_equals_an_obvious_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 4, generator=generator) * 2
    labels = torch.randint(4, (500,), generator=generator)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(logits.double().softmax(dim=1), labels, strict=True):
        bins.setdefault(math.ceil(row.max().item() * 15), []).append((row.max().item(), bool(row.argmax() == label)))
    expected = 0.0
    for members in bins.values():
        confidence = sum(member[0] for member in members) / len(members)
        right = sum(member[1] for member in members) / len(members)
        expected += len(members) / 500 * abs(confidence - right)
    metrics = measure(logits, labels)
    assert metrics is not None
    assert metrics.expected_calibration_error == pytest.approx(expected)
