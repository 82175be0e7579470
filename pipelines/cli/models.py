"""`alfamix promote` and `rollback`: which model serves."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from pipelines.cli.options import JsonOption, ProjectArgument, open_project
from pipelines.cli.printing import Shown

ReasonOption = Annotated[str, typer.Option(help="Reason, in your words; kept with the decision.")]


def promote(
    project: ProjectArgument,
    number: Annotated[int, typer.Option("--round", min=1, help="Round whose model is to serve.")],
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> Shown:
    """Make a round's model the champion, whatever the gate decided. The decision is kept with its numbers."""
    return _choose(project, number, reason, "promote")


def rollback(project: ProjectArgument, reason: ReasonOption = "", as_json: JsonOption = False) -> Shown:
    """Go back to the champion that served before. The decision is kept with its numbers."""
    return _choose(project, None, reason, "rollback")


def _choose(project: str, number: int | None, reason: str, kind: Literal["promote", "rollback"]) -> Shown:
    from alfamix_core.project import choice, rounds

    store = open_project(project)
    rounds.read_settings(store)
    decision = choice.choose(store, number, reason, datetime.now(UTC), kind)
    before = f" in place of round {decision.champion_round}" if decision.champion_round else ""
    return Shown(decision, [f"the model of round {decision.round} is the champion{before}"])
