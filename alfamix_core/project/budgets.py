"""A project's budgets: rounds and questions per day, and questions in total."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Round

DAY = timedelta(hours=24)


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
    budgets, asked = project.budgets, sum(record.outcome.queries for record in rounds if record.outcome is not None)
    reserve = min(project.audit.per_round, counts.reserve)
    counted, need = used(rounds, asked, now), min(project.budget, counts.pool + reserve)
    begun = counted["rounds_per_day"]
    if budgets.rounds_per_day is not None and begun >= budgets.rounds_per_day:
        return f"{begun} rounds began in the last 24 hours, and budgets.rounds_per_day is {budgets.rounds_per_day}"
    for allowed, name, when in (
        (budgets.labels_per_day, "labels_per_day", " in the last 24 hours"),
        (budgets.labels, "labels", ""),
    ):
        asked = counted[name]
        if allowed is not None and asked + need > allowed:
            return f"{asked:,} questions were asked{when}, a round asks {need:,}, and budgets.{name} is {allowed:,}"
    return ""


def used(rounds: Iterable[Round], asked: int, now: datetime) -> dict[str, int]:
    """Return how much of each budget is used, by the budget's name.

    Args:
        rounds: At least the rounds that were planned in the last 24 hours; an abandoned round uses no budget.
        asked: Number of questions that all rounds have asked.
        now: Current moment, UTC; a day is the 24 hours before it.
    """
    today = [record for record in rounds if record.planned_at > now - DAY and record.state != "abandoned"]
    questions = sum(record.outcome.queries for record in today if record.outcome is not None)
    return {"labels": asked, "labels_per_day": questions, "rounds_per_day": len(today)}
