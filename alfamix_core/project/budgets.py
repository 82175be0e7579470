"""A project's budgets: rounds and questions per day, and questions in total."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Round

_DAY = timedelta(hours=24)


def are_set(project: Project) -> bool:
    """Whether the project has any budget; without one its rounds need not be read."""
    return project.budgets != type(project.budgets)()


def spent(project: Project, rounds: Sequence[Round], counts: Counts, now: datetime) -> str:
    """Name the budget that does not suffice for another round; empty when all do.

    A question counts from the moment its round was planned, answered or not. The next round is assumed to ask its
    whole budget, or about the whole pool and the audit's share of the reserve if these are fewer; ``--force`` makes no
    difference.

    Args:
        project: Settings.
        rounds: All rounds, in any order.
        counts: Counts of the samples now.
        now: Current moment, UTC; a day is the 24 hours before it.
    """
    budgets = project.budgets
    today = [record for record in rounds if record.planned_at > now - _DAY and record.state != "abandoned"]
    if budgets.rounds_per_day is not None and len(today) >= budgets.rounds_per_day:
        return f"{len(today)} rounds began in the last 24 hours, and budgets.rounds_per_day is {budgets.rounds_per_day}"
    need = min(project.budget, counts.pool + min(project.audit.per_round, counts.reserve))
    for allowed, counted, name, when in (
        (budgets.labels_per_day, today, "labels_per_day", " in the last 24 hours"),
        (budgets.labels, rounds, "labels", ""),
    ):
        asked = sum(record.outcome.queries for record in counted if record.outcome is not None)
        if allowed is not None and asked + need > allowed:
            return f"{asked:,} questions were asked{when}, a round asks {need:,}, and budgets.{name} is {allowed:,}"
    return ""
