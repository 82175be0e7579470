"""Precision, recall and F1 of each class, from a confusion matrix; without torch, because reports show them too."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class. A ratio with the denominator 0 is 0, so a class never predicted has precision 0.

    Attributes:
        precision: Share of the class's predictions that are correct.
        recall: Share of the class's samples that are predicted correctly.
        f1: Harmonic mean of precision and recall.
        support: Number of samples with this label.
        predicted: Number of samples for which this class is predicted.
    """

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


def class_metrics(confusion: Sequence[Sequence[int]]) -> tuple[ClassMetrics, ...]:
    """Return the metrics of every class, in the order of the classes; ``confusion`` is (K, K), row = label."""
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    return tuple(_of_class(row[k], sum(row), predicted[k]) for k, row in enumerate(confusion))


def _of_class(correct: int, support: int, predicted: int) -> ClassMetrics:
    return ClassMetrics(
        precision=correct / predicted if predicted else 0.0,
        recall=correct / support if support else 0.0,
        f1=2 * correct / (support + predicted) if support + predicted else 0.0,
        support=support,
        predicted=predicted,
    )
