"""The points of a learning curve, made from the rounds' records."""

from collections.abc import Iterable
from dataclasses import dataclass

from alfamix_core.records.round import Round


@dataclass(frozen=True)
class CurvePoint:
    """The quality of one round's model, and the number of labels it was trained on.

    Attributes:
        round: Number of the round, from 1.
        labels: Number of labels of the train split on which the model was trained.
        accuracy: Accuracy on the test split, in [0, 1]; None without test labels.
        macro_f1: macro-averaged F1 on the test split, in [0, 1]; None without test labels.
        promoted: Whether the model became the champion.
    """

    round: int
    labels: int
    accuracy: float | None = None
    macro_f1: float | None = None
    promoted: bool = False


def point_of(record: Round) -> CurvePoint:
    """Return a round's point: the number of train labels it was planned with, and the metrics of its outcome."""
    metrics = record.outcome.metrics if record.outcome else {}
    return CurvePoint(
        round=record.number,
        labels=record.counts.train,
        accuracy=metrics.get("accuracy"),
        macro_f1=metrics.get("macro_f1"),
        promoted=record.outcome is not None and record.outcome.promoted,
    )


def measured(points: Iterable[CurvePoint]) -> list[tuple[CurvePoint, float]]:
    """Return the points that have an accuracy, each with its accuracy, in order of round."""
    return [(p, p.accuracy) for p in sorted(points, key=lambda p: p.round) if p.accuracy is not None]
