"""When another round is not worth it, and what the next one may bring."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alfamix_core.records.project import REPORTED, Project
from alfamix_core.records.round import Counts, Round

_POINTS = 6
"""The forecast is fitted to so many of the last rounds at most: a learning curve bends, its end is nearly straight."""

_LEAST = 1e-4  # what a model that makes no mistake on the test split is still taken to miss


@dataclass(frozen=True)
class Forecast:
    """What the next round may measure.

    Attributes:
        metric: which.
        labels: of the train split, with which it would be trained.
        value: expected.
        error: one standard error of that prediction, from how far the last rounds lie from the fit.
        rounds: how many were fitted.
    """

    metric: str
    labels: int
    value: float
    error: float
    rounds: int

    @property
    def text(self) -> str:
        """The forecast in words."""
        return (
            f"the next round may reach {self.metric} {self.value:.4f} ± {self.error:.4f} with {self.labels:,} labels "
            f"(a power law through the last {self.rounds} rounds)"
        )


@dataclass(frozen=True)
class Advice:
    """Whether another round is worth it.

    Attributes:
        reasons: what speaks against it, in words.
        unknown: what could not be judged, and what is missing for it.
        forecast: None with fewer than three measured rounds of different size.
    """

    reasons: tuple[str, ...]
    unknown: tuple[str, ...]
    forecast: Forecast | None

    @property
    def worth_it(self) -> bool:
        """Whether nothing speaks against another round."""
        return not self.reasons

    @property
    def text(self) -> str:
        """The reasons as one line; empty when it is worth it."""
        return "another round is not worth it: " + "; ".join(self.reasons) if self.reasons else ""


def advise(project: Project, rounds: Sequence[Round], counts: Counts, budget_spent: str = "") -> Advice:
    """Judge by what the rounds measured.

    Args:
        project: its settings: ``stop`` and ``promotion.metric``.
        rounds: all, oldest first.
        counts: of the samples now.
        budget_spent: which budget is used up, in words; empty when none is.
    """
    reasons, unknown = [], []
    if budget_spent:
        reasons.append(budget_spent)
    if rounds and not counts.pool and not counts.queried:
        reasons.append("no sample is left that could be asked")
    metric, sign = project.promotion.metric, REPORTED.get(project.promotion.metric, 1)
    points = _points(rounds, metric)
    over = project.stop.plateau_rounds
    if len(points) > over:
        before, now = points[-over - 1][1], points[-1][1]
        gain = sign * (now - before)
        if gain < project.stop.plateau_gain:
            reasons.append(
                f"{metric} went from {before:.4f} to {now:.4f} over {over} rounds, a gain of {gain:+.4f}, less than "
                f"stop.plateau_gain {project.stop.plateau_gain:g}"
            )
    else:
        unknown.append(f"plateau: {over + 1} rounds that measured {metric} are needed, there are {len(points)}")
    agreement = next((each.outcome.agreement for each in reversed(rounds) if each.outcome is not None), None)
    if agreement is None:
        unknown.append(
            "agreement: the last round compared its model with no earlier one; test or audit labels are needed"
        )
    elif 1 - agreement < project.stop.min_change:
        reasons.append(
            f"the last two models say the same about {agreement:.2%} of the test samples, and differ about less than "
            f"stop.min_change {project.stop.min_change:g}"
        )
    return Advice(tuple(reasons), tuple(unknown), forecast(points, metric, counts.train + project.budget))


def forecast(points: Sequence[tuple[int, float]], metric: str, labels: int) -> Forecast | None:
    """Extend the last points of a learning curve by a power law: what is missing to a perfect model falls with labels.

    A line is fitted to the logarithm of what is missing over the logarithm of the labels.

    Args:
        points: (labels, value in [0, 1]), oldest first; labels at least 1.
        metric: what the values are; one of which less is better has 0 for perfect, the others 1.
        labels: for which the value is wanted, at least 1.

    Returns:
        The prediction with its standard error, s * sqrt(1 + 1/n + (x - mean)^2 / Sxx) with s^2 = RSS / (n - 2) for the
        logarithm, times what is missing (the delta method); None with fewer than three different label counts.

    Source:
        Simple linear regression, prediction of a new observation: Draper, Smith, "Applied Regression Analysis", 1.4.
    """
    perfect = 1.0 if REPORTED.get(metric, 1) > 0 else 0.0
    last = [(math.log(count), math.log(max(abs(perfect - value), _LEAST))) for count, value in points[-_POINTS:]]
    if len({x for x, _ in last}) < 3:
        return None
    n = len(last)
    mean_x, mean_y = sum(x for x, _ in last) / n, sum(y for _, y in last) / n
    spread = sum((x - mean_x) ** 2 for x, _ in last)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in last) / spread
    residual = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in last)
    at = math.log(labels) - mean_x
    error = math.sqrt(residual / (n - 2) * (1 + 1 / n + at**2 / spread))
    missing = min(math.exp(min(mean_y + slope * at, 0.0)), 1.0)
    return Forecast(metric, labels, abs(perfect - missing), error * missing, n)


def _points(rounds: Sequence[Round], metric: str) -> list[tuple[int, float]]:
    """Return (labels, metric) of the rounds that measured it; test labels before audit labels."""
    found = []
    for each in rounds:
        if each.outcome is None or not each.counts.train:
            continue
        value = each.outcome.metrics.get(metric, each.outcome.audit.get(metric))
        if value is not None:
            found.append((each.counts.train, value))
    return found
