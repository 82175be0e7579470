"""A point of a learning curve, and how a round's record becomes one."""

from collections.abc import Iterable
from dataclasses import dataclass

from alfamix_core.records.round import Round


@dataclass(frozen=True)
class CurvePoint:
    """How good the model of one round was, and on how many labels.

    Attributes:
        round: its number, from 1.
        labels: labels of the train split that the model was fitted on.
        accuracy: on the test split, in [0, 1]; None without test labels.
        macro_f1: on the test split, in [0, 1]; None without test labels.
        promoted: whether the model became the champion.
    """

    round: int
    labels: int
    accuracy: float | None = None
    macro_f1: float | None = None
    promoted: bool = False


def point_of(record: Round) -> CurvePoint:
    """Return a round's point: the train labels it was planned with and what its outcome measured."""
    metrics = record.outcome.metrics if record.outcome else {}
    return CurvePoint(
        round=record.number,
        labels=record.counts.train,
        accuracy=metrics.get("accuracy"),
        macro_f1=metrics.get("macro_f1"),
        promoted=record.outcome is not None and record.outcome.promoted,
    )


def measured(points: Iterable[CurvePoint]) -> list[tuple[CurvePoint, float]]:
    """Return the points that have an accuracy, with it, in order of round."""
    return [(p, p.accuracy) for p in sorted(points, key=lambda p: p.round) if p.accuracy is not None]
