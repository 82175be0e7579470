"""The names of the strategies' scores for people, and whether people read them with the opposite sign."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How a score is presented to people.

    Attributes:
        name: Name of the number.
        sign: 1, or -1 if people know the negative of the score.
        meaning: One sentence for readers who have not read the paper.
    """

    name: str
    sign: int
    meaning: str

    def of(self, score: float) -> float:
        """Return the number that people read; a score of 0 stays a plain 0."""
        return self.sign * score or 0.0


SCORE = Reading("score", 1, "Higher is more informative, by the strategy's own measure.")
_READINGS = {
    "alfamix": Reading(
        "critical cap",
        -1,
        "How far the sample's features must move, relative to their distance from the labelled classes' anchors, "
        "before its prediction flips; the smaller the cap, the less certain the model is.",
    ),
    "random": Reading("random number", -1, "It has no meaning: every sample of the pool had the same chance."),
    "least_confidence": Reading("doubt", 1, "One minus the probability of the predicted class."),
    "margin": Reading("margin score", 1, "One minus the gap between the two most likely classes; 1 is a tie."),
    "entropy": Reading("entropy", 1, "Entropy of the predicted probabilities, in nats; higher is less certain."),
    "bald": Reading("disagreement", 1, "Disagreement between models sampled by dropout, in nats."),
    "batchbald": Reading(
        "disagreement", 1, "Disagreement between models sampled by dropout, in nats, about the sample alone."
    ),
    "dfal": Reading("perturbation", -1, "Norm of the smallest change of the input that flips the prediction."),
}


def reading_of(strategy: str) -> Reading:
    """Return how the strategy's score is presented; by default as a plain score."""
    return _READINGS.get(strategy, SCORE)
