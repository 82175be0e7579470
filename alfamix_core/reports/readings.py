"""What a strategy's score is called when people read it, and whether its sign is turned for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How to say a score.

    Attributes:
        name: what the number is called.
        sign: 1, or -1 where people know the score's negative.
        meaning: one sentence for readers who have not read the paper.
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
        "before its prediction flips: the smaller, the less settled the model is about it.",
    ),
    "random": Reading("random number", -1, "Carries no meaning: every sample of the pool had the same chance."),
    "least_confidence": Reading("doubt", 1, "One minus the probability of the predicted class."),
    "margin": Reading("margin score", 1, "One minus the gap between the two most likely classes; 1 is a tie."),
    "entropy": Reading("entropy", 1, "Of the predicted probabilities, in nats; higher is less certain."),
    "bald": Reading("disagreement", 1, "Between models sampled by dropout, in nats."),
    "batchbald": Reading("disagreement", 1, "Between models sampled by dropout, in nats, of the sample alone."),
    "dfal": Reading("perturbation", -1, "Norm of the smallest change of the input that flips the prediction."),
}


def reading_of(strategy: str) -> Reading:
    """Return how the strategy's score is read; a plain score for one without a name of its own."""
    return _READINGS.get(strategy, SCORE)
