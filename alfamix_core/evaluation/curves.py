"""Learning curves: how accuracy grows with the number of labels. They need no torch."""

from dataclasses import dataclass
from itertools import pairwise

from alfamix_core.errors import InputError


@dataclass(frozen=True)
class LearningCurve:
    """The accuracy after each round of one campaign.

    Attributes:
        labels: numbers of labelled samples that the models were trained on, strictly ascending, at least one.
        accuracies: accuracies of these models, in [0, 1].
    """

    labels: tuple[int, ...]
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.labels or len(self.labels) != len(self.accuracies):
            raise InputError(
                "a learning curve must have at least one point, and as many accuracies as label counts, not "
                f"{len(self.accuracies)} and {len(self.labels)}"
            )
        for before, after in pairwise(self.labels):
            if after <= before:
                raise InputError(f"a learning curve's label counts must ascend, not {before}, {after}")

    @staticmethod
    def of(points: dict[int, float]) -> "LearningCurve":
        """Return the curve of accuracies given by label count, in any order."""
        labels = sorted(points)
        return LearningCurve(tuple(labels), tuple(points[count] for count in labels))


def area(curve: LearningCurve) -> float:
    """Return the area under the learning curve (AULC): the mean accuracy over the labels, by the trapezoidal rule.

    Areas of strategies are comparable only if their curves have the same label counts.

    Returns:
        A number in [0, 1]: accuracies of 0.5, 0.7 and 0.8 at 100, 200 and 300 labels give 0.675. The area of a single
        point is its accuracy.

    Source:
        docs/STRATEGIES.md, section 12.
    """
    if len(curve.labels) == 1:
        return curve.accuracies[0]
    total = sum(
        (right - left) * (low + high) / 2
        for (left, right), (low, high) in zip(pairwise(curve.labels), pairwise(curve.accuracies), strict=True)
    )
    return total / (curve.labels[-1] - curve.labels[0])


def mean_accuracy(curve: LearningCurve) -> float:
    """Return the mean accuracy over the rounds, all with the same weight."""
    return sum(curve.accuracies) / len(curve.accuracies)


def labels_needed(curve: LearningCurve, accuracy: float) -> float | None:
    """Return the number of labels at which the curve, interpolated linearly, first reaches an accuracy.

    Returns:
        The first label count if the curve starts at or above the accuracy, though fewer labels might have sufficed;
        None if the curve never reaches it.
    """
    if curve.accuracies[0] >= accuracy:
        return float(curve.labels[0])
    for (left, right), (low, high) in zip(pairwise(curve.labels), pairwise(curve.accuracies), strict=True):
        if high >= accuracy:
            return left + (right - left) * (accuracy - low) / (high - low)
    return None
