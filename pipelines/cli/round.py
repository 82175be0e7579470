"""`alfamix round`: plan, run, follow or abandon one round."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import (
    EndpointOption,
    EngineOption,
    JsonOption,
    NamespaceOption,
    NetworkOption,
    ProjectArgument,
    WorkOption,
    open_project,
)
from pipelines.cli.printing import Shown, columns, out, print_error

if TYPE_CHECKING:
    from alfamix_core.project.planning import Plan
    from alfamix_core.storage import Store
    from pipelines.engines.engine import Ended


def run(
    project: ProjectArgument,
    plan: Annotated[bool, typer.Option("--plan", help="Print what a round would do; start nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start a round even if too little is new.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Let an unfinished round compute everything again, whatever is cached.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up the unfinished round, which asked nothing. Needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Reason for abandoning the round, in your words.")] = "",
    engine: EngineOption = "local",
    network: NetworkOption = "",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Show the stages on a cluster until the run ends.")] = False,
    work: WorkOption = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show everything that the stages print.")] = False,
    as_json: JsonOption = False,
) -> int | Shown:
    """Run one round: train, embed, score, select, ask. A round that was interrupted resumes.

    Exit status: 0 exported or nothing to do; 2 wrong input; 3 storage or network, try again; 1 a bug of ours.
    """
    from alfamix_core.project import lock, planning
    from pipelines.engines import engine as engines

    name = engines.EngineName.parse(engine)
    if abandon != bool(reason.strip()):
        raise InputError("--abandon: needs --reason, in your words" if abandon else "--reason: is for --abandon")
    if abandon and (plan or force or fresh):
        raise InputError("--abandon: starts nothing, and excludes --plan, --force and --fresh")
    store, now = open_project(project), datetime.now(UTC)
    chosen = engines.open(name, store, engines.Options(work, network, endpoint, namespace))
    blocked = lock.blocked_by(lock.read(store).value, "", now)
    if blocked and not plan and not chosen.free_lock():
        raise InputError(blocked)
    if abandon:
        return _abandon(store, reason.strip(), now)
    intended = planning.consider(store, now, force)
    if plan:
        return _plan(store, intended, blocked)
    if intended.decision == "idle":
        planning.finish_killed(store, intended.last, now)
        return Shown({"state": "idle", "text": intended.text}, [f"no round: {intended.text}"])
    chosen.check()
    if not as_json:
        out.print(_heading(intended), markup=True)
    started = chosen.start(intended, force, fresh)
    if chosen.detached and not as_json:
        out.print(f"run {started.run_id}\n{started.link}")
    if chosen.detached and not wait:
        return Shown({"run_id": started.run_id, "link": started.link}, [])
    from rich.console import Console

    ended = chosen.follow(started, Console(stderr=as_json, highlight=False), verbose)
    return _conclude(store, project, ended, intended.number, started.link)


def _heading(plan: "Plan") -> str:
    budget = f"up to {plan.project.budget} queries of {plan.counts.pool:,} samples"
    return f"[bold]round {plan.number}[/] · {plan.text} · {budget} · {plan.project.strategy.name}"


def _abandon(store: "Store", reason: str, now: datetime) -> Shown:
    from alfamix_core.project import rounds

    abandoned = rounds.abandon(store, reason, now)
    return Shown(abandoned, [f"round {abandoned.number} is abandoned"])


def _conclude(store: "Store", project: str, ended: "Ended", planned: int, log: str) -> int | Shown:
    """Return what became of a run; print why it failed and return its exit status if it did."""
    from alfamix_core.project import champion, objects, rounds

    number = ended.number or planned
    if ended.failures:
        stage, status, line = ended.failures[0]
        print_error(f"round {number}, {stage}: {line}")
        return status
    if ended.state in ("idle", "refused"):
        print_error(f"no round: {ended.text}")
        return 2 if ended.state == "refused" else 0
    record = rounds.read(store, number).value if number in rounds.numbers(store) else None
    if record is None or record.outcome is None or not ended.succeeded:
        print_error(f"round {number} ended without saying why; its log is {log}")
        return 1
    outcome = record.outcome
    metrics = " · ".join(f"{name} {value:.4f}" for name, value in outcome.metrics.items() if name == "accuracy")
    serving = champion.read(store).value
    promoted = " · new champion" if serving.round == number else ""
    lines = [f"asked {outcome.queries} queries{' · ' + metrics if metrics else ''}{promoted}"]
    if outcome.short_by:
        lines.append(f"{outcome.short_by} fewer than the budget: {outcome.reason}")
    if outcome.quarantined:
        listed = store.uri_of(objects.key_of(record, "quarantine"))
        lines.append(f"{outcome.quarantined} samples could not be read: {listed}")
    if text := champion.waits(serving, record):
        lines.append(f"{text}: alfamix promote {project} --round {number}, or leave it")
    return Shown(record, [*lines, f"report: alfamix report {project} --round {number}"])


def _plan(store: "Store", plan: "Plan", blocked: str) -> Shown:
    from pipelines.engines.estimate import minutes

    facts = {
        "round": plan.number,
        "decision": "refused" if blocked else plan.decision,
        "because": blocked or plan.text,
        "samples": plan.counts.samples,
        "pool": plan.counts.pool,
        "labelled": plan.counts.labelled,
        "open_queries": plan.counts.queried,
        "budget": min(plan.project.budget, plan.counts.pool),
        "strategy": plan.project.strategy.name,
        "shards": plan.shards,
        "estimated_minutes": minutes(store, plan),
    }
    table = columns("", name=False, value=False)
    table.show_header = False
    for name, value in facts.items():
        shown = "unknown before the first round" if value is None else value
        table.add_row(name.replace("_", " "), f"{shown:,}" if isinstance(shown, int) else str(shown))
    return Shown(facts, [table])
