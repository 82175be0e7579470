"""Advice against another round, and a forecast of the next one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alfamix_core.records.project import REPORTED, Project
from alfamix_core.records.round import Counts, Round

_POINTS = 6
"""Maximum number of last rounds to which the forecast is fitted: a learning curve bends, its end is nearly straight."""

_LEAST = 1e-4  # assumed error of a model that makes no mistake on the test split


@dataclass(frozen=True)
class Forecast:
    """Forecast of the next round's metric.

    Attributes:
        metric: Name of the metric.
        labels: Train labels of the next model.
        value: Expected value.
        error: One standard error of that prediction, from the residuals of the fit.
        rounds: Number of fitted rounds.
    """

    metric: str
    labels: int
    value: float
    error: float
    rounds: int

    @property
    def text(self) -> str:
        """Human-readable forecast."""
        return (
            f"the next round may reach {self.metric} {self.value:.4f} ± {self.error:.4f} with {self.labels:,} labels "
            f"(a power law through the last {self.rounds} rounds)"
        )


@dataclass(frozen=True)
class Advice:
    """Judgement on another round.

    Attributes:
        reasons: Human-readable reasons against it.
        unknown: What could not be judged, and what is missing for it.
        forecast: Forecast; None with fewer than three measured rounds of different size.
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
    """Judge by the metrics of the rounds.

    Args:
        project: Settings: ``stop`` and ``promotion.metric``.
        rounds: All rounds, oldest first.
        counts: Counts of the samples now.
        budget_spent: Human-readable budget that is used up; empty when none is.
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
    agreement = next((record.outcome.agreement for record in reversed(rounds) if record.outcome is not None), None)
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
        points: Pairs of labels, at least 1, and value in [0, 1], oldest first.
        metric: Name of the values; if less is better, 0 is perfect, else 1.
        labels: Labels for which to predict the value, at least 1.

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
    points = []
    for record in rounds:
        if record.outcome is None or not record.counts.train:
            continue
        value = record.outcome.metrics.get(metric, record.outcome.audit.get(metric))
        if value is not None:
            points.append((record.counts.train, value))
    return points
