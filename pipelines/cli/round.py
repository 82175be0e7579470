"""`alfamix round`: plan, run, follow or abandon one round."""

from datetime import UTC, datetime
from pathlib import Path
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
    check_engine,
    open_project,
)
from pipelines.cli.printing import columns, out, print_error, print_json, print_record

if TYPE_CHECKING:
    from alfamix_core.project.planning import Plan
    from alfamix_core.storage import Store
    from pipelines.engines.progress import Run


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
) -> int:
    """Run one round: train, embed, score, select, ask. A round that was interrupted resumes.

    Exit status: 0 exported or nothing to do; 2 wrong input; 3 storage or network, try again; 1 a bug of ours.
    """
    from alfamix_core.project import lock, planning
    from pipelines.engines import progress as watch
    from pipelines.engines import work_folder

    check_engine(engine)
    if abandon != bool(reason.strip()):
        raise InputError("--abandon: needs --reason, in your words" if abandon else "--reason: is for --abandon")
    if abandon and (plan or force or fresh):
        raise InputError("--abandon: starts nothing, and excludes --plan, --force and --fresh")
    store = open_project(project)
    now = datetime.now(UTC)
    stored_lock = lock.read(store)
    blocked = lock.blocked_by(stored_lock[0] if stored_lock else None, "", now)
    if blocked and not plan and engine == "kubeflow":
        from pipelines.engines.kubeflow import Kubeflow, free_lock

        blocked = "" if free_lock(Kubeflow(endpoint, namespace), store) else blocked
    if blocked and not plan:
        raise InputError(blocked)
    if abandon:
        return _abandon(store, reason.strip(), now, as_json)
    intended = planning.consider(store, now, force)
    if plan:
        return _print_plan(store, intended, blocked, as_json)
    if intended.decision == "idle":
        planning.finish_killed(store, intended.last, now)
        print_json({"state": "idle", "text": intended.text}) if as_json else out.print(f"no round: {intended.text}")
        return 0
    if engine == "kubeflow":
        return _run_on_kubeflow(store, intended, endpoint, namespace, force, fresh, wait, as_json)
    if engine == "docker":
        from pipelines.engines import containers as docker

        docker.check(store, network)
    from rich.console import Console

    root = work if work is not None else work_folder.default(store.uri)
    folder = work_folder.of_round(root, intended.number)
    log = work_folder.new_log(root, intended.number, now)
    if not as_json:
        budget = f"up to {intended.project.budget} queries of {intended.counts.pool:,} samples"
        out.print(
            f"[bold]round {intended.number}[/] · {intended.text} · {budget} · {intended.project.strategy.name}",
            markup=True,
        )
    child = watch.start(store.uri, folder, log, force, engine, network, fresh)
    ended = watch.follow(child, log, Console(stderr=as_json, highlight=False), verbose)
    status = _conclude(store, project, ended, child.returncode, intended.number, log, as_json)
    if not status:
        work_folder.forget_before(root, intended.number)
    return status


def _abandon(store: "Store", reason: str, now: datetime, as_json: bool) -> int:
    from alfamix_core.project import rounds

    abandoned = rounds.abandon(store, reason, now)
    if as_json:
        print_record(abandoned)
    else:
        out.print(f"round {abandoned.number} is abandoned")
    return 0


def _run_on_kubeflow(
    store: "Store", plan: "Plan", endpoint: str, namespace: str, force: bool, fresh: bool, wait: bool, as_json: bool
) -> int:
    """Start a run on a cluster and print where it is; on request wait for its end."""
    from pipelines.engines.kubeflow import Kubeflow, told_by_project

    kubeflow = Kubeflow(endpoint, namespace)
    run_id = kubeflow.start(plan.project, store.uri, force, fresh)
    link = kubeflow.link(run_id)
    if as_json and not wait:
        print_json({"run_id": run_id, "link": link})
    elif not as_json:
        out.print(f"round {plan.number} · {plan.text} · run {run_id}\n{link}")
    if not wait:
        return 0
    ended = kubeflow.follow(run_id, 5.0, lambda line: typer.echo(line, err=as_json))
    outcome, number = told_by_project(store, ended)
    return _conclude(store, store.uri, outcome, ended.state != "SUCCEEDED", number or plan.number, link, as_json)


def _conclude(
    store: "Store", project: str, run: "Run", returncode: int, number: int, log: Path | str, as_json: bool
) -> int:
    """Print what became of a run; return its exit status."""
    from alfamix_core.project import champion, objects, rounds

    if run.failures:
        stage, status, line = run.failures[0]
        print_error(f"round {number}, {stage}: {line}")
        return status
    if run.state in ("idle", "refused"):
        print_error(f"no round: {run.text}")
        return 2 if run.state == "refused" else 0
    record = rounds.read(store, number)[0] if number in rounds.numbers(store) else None
    if record is None or record.outcome is None or returncode:
        print_error(f"round {number} ended without saying why; its log is {log}")
        return 1
    outcome = record.outcome
    if as_json:
        print_record(record)
        return 0
    metrics = " · ".join(f"{name} {value:.4f}" for name, value in outcome.metrics.items() if name == "accuracy")
    serving, _ = champion.read(store)
    promoted = " · new champion" if serving.round == number else ""
    out.print(f"asked {outcome.queries} queries{' · ' + metrics if metrics else ''}{promoted}")
    if outcome.short_by:
        out.print(f"{outcome.short_by} fewer than the budget: {outcome.reason}")
    if outcome.quarantined:
        listed = store.uri_of(objects.key_of(record, "quarantine"))
        out.print(f"{outcome.quarantined} samples could not be read: {listed}")
    if text := champion.waits(serving, record):
        out.print(f"{text}: alfamix promote {project} --round {number}, or leave it")
    out.print(f"report: alfamix report {project} --round {number}")
    return 0


def _print_plan(store: "Store", plan: "Plan", blocked: str, as_json: bool) -> int:
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
    if as_json:
        print_json(facts)
        return 0
    table = columns("", name=False, value=False)
    table.show_header = False
    for name, value in facts.items():
        shown = "unknown before the first round" if value is None else value
        table.add_row(name.replace("_", " "), f"{shown:,}" if isinstance(shown, int) else str(shown))
    out.print(table)
    return 0
