"""What a project may spend: rounds and questions in a day, questions in all."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Round

_DAY = timedelta(hours=24)


def are_set(project: Project) -> bool:
    """Whether the project has any budget; without one its rounds need not be read."""
    return project.budgets != type(project.budgets)()


def spent(project: Project, rounds: Sequence[Round], counts: Counts, now: datetime) -> str:
    """Say which budget does not suffice for another round, and what it is; empty when all do.

    A question counts from when its round was planned, whether or not it was answered. The next round is taken to ask
    its whole budget, or the pool where that is smaller; ``--force`` makes no difference.

    Args:
        project: its settings.
        rounds: all of it, in any order.
        counts: of the samples now.
        now: the current moment; a day is the 24 hours before it.
    """
    budgets = project.budgets
    today = [record for record in rounds if record.planned_at > now - _DAY and record.state != "abandoned"]
    if budgets.rounds_per_day is not None and len(today) >= budgets.rounds_per_day:
        return f"{len(today)} rounds began in the last 24 hours, and budgets.rounds_per_day is {budgets.rounds_per_day}"
    need = min(project.budget, counts.pool)
    for allowed, counted, name, when in (
        (budgets.labels_per_day, today, "labels_per_day", " in the last 24 hours"),
        (budgets.labels, rounds, "labels", ""),
    ):
        asked = sum(record.outcome.queries for record in counted if record.outcome is not None)
        if allowed is not None and asked + need > allowed:
            return f"{asked:,} questions were asked{when}, a round asks {need:,}, and budgets.{name} is {allowed:,}"
    return ""
