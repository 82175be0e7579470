"""How accuracy grows with labels, and how many labels a strategy saves. Needs no torch."""

from dataclasses import dataclass
from itertools import pairwise

from alfamix_core.errors import InputError


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy after each round of one campaign.

    Attributes:
        labels: labelled samples the model was trained on, strictly ascending; at least one.
        accuracies: in [0, 1], one for each of them.
    """

    labels: tuple[int, ...]
    accuracies: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.labels or len(self.labels) != len(self.accuracies):
            raise InputError(
                "a learning curve must have at least one point and as many accuracies as label counts, not "
                f"{len(self.labels)} and {len(self.accuracies)}"
            )
        for before, after in pairwise(self.labels):
            if after <= before:
                raise InputError(f"a learning curve's label counts must ascend, not {before}, {after}")

    @staticmethod
    def of(points: dict[int, float]) -> "LearningCurve":
        """Return the curve of accuracies by label count, in any order."""
        labels = sorted(points)
        return LearningCurve(tuple(labels), tuple(points[count] for count in labels))


def area(curve: LearningCurve) -> float:
    """Return the area under the learning curve (AULC): the mean accuracy over the labels, trapezoid by trapezoid.

    Comparable between strategies on one grid of label counts only.

    Returns:
        In [0, 1]; 100, 200, 300 labels at .5, .7, .8 give 0.675. Of a single point, its accuracy.

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
    """Return the mean accuracy over the rounds, each round counting the same."""
    return sum(curve.accuracies) / len(curve.accuracies)


def labels_needed(curve: LearningCurve, accuracy: float) -> float | None:
    """Return the number of labels at which the curve first reaches an accuracy, on straight lines between its points.

    Returns:
        The first label count if the curve begins there or above, so that fewer might have sufficed; None if it never
        gets there.
    """
    if curve.accuracies[0] >= accuracy:
        return float(curve.labels[0])
    for (left, right), (low, high) in zip(pairwise(curve.labels), pairwise(curve.accuracies), strict=True):
        if high >= accuracy:
            return left + (right - left) * (accuracy - low) / (high - low)
    return None


def label_savings(curve: LearningCurve, baseline: LearningCurve, accuracy: float) -> float | None:
    """Return the share of the baseline's labels that the curve saves on its way to an accuracy.

    Returns:
        At most 1, below 0 if the curve needs more: 0.25 means a quarter fewer labels. None if one of them never gets
        there, or the baseline needs no label.
    """
    needed, reference = labels_needed(curve, accuracy), labels_needed(baseline, accuracy)
    if needed is None or not reference:
        return None
    return 1 - needed / reference
