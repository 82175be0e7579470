"""Learning curves: how accuracy grows with the number of labels. They need no torch."""

from dataclasses import dataclass
from itertools import pairwise

from alfamix_core.errors import InputError


@dataclass(frozen=True)
class LearningCurve:
    """The accuracy after each round of one campaign.

    Attributes:
        labels: Numbers of labelled samples that the models were trained on, strictly ascending, at least one.
        accuracies: Accuracies of these models, in [0, 1].
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


def mean_accuracy(curve: LearningCurve) -> float:
    """Return the mean accuracy over the rounds, all with the same weight."""
    return sum(curve.accuracies) / len(curve.accuracies)
