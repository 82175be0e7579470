"""`alfamix doctor`, `clean` and `unlock`: what keeps a project sound."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import (
    EndpointOption,
    JsonOption,
    NamespaceOption,
    ProjectArgument,
    open_project,
)
from pipelines.cli.printing import Shown, out

if TYPE_CHECKING:
    from alfamix_core.project.doctor import Finding
    from alfamix_core.storage import Store


def doctor(
    project: ProjectArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file again and compare its digest.")] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let all samples out of the quarantine, because they were repaired.")
    ] = False,
    sample: Annotated[
        list[str] | None, typer.Option(help="Sample that --release lets out, and no other. May be repeated.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Engine that is examined too: kubeflow has a schedule and runs on the cluster.")
    ] = "local",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    as_json: JsonOption = False,
) -> Shown:
    """Report what is inconsistent, orphaned, locked, overdue or waits for a person, and what to do about it.

    Exit status: 0 all is well; 1 there are findings.
    """
    from alfamix_core.project import doctor as doctors
    from alfamix_core.project.inbox import corrections
    from pipelines.engines import engine as engines

    store = open_project(project)
    if sample and not release:
        raise InputError("--sample: is for --release")
    if release:
        count = corrections.release(store, sample or (), datetime.now(UTC))
        return Shown({"released": count}, [f"released {count:,} samples from the quarantine"])
    options = engines.Options(endpoint=endpoint, namespace=namespace)
    chosen = engines.open(engines.EngineName.parse(engine), store, options)
    findings = doctors.examine(store, datetime.now(UTC), deep)
    if chosen.detached:
        findings = [*findings, *_examine_cluster(store, endpoint, namespace)]
    lines = [
        f"{finding.kind}: {finding.key + ' ' if finding.key else ''}{finding.what}\n  {finding.do}"
        for finding in findings
    ]
    return Shown(findings, lines or ["all is well"], status=int(bool(findings)))


def _examine_cluster(store: "Store", endpoint: str, namespace: str) -> "list[Finding]":
    """Return what is wrong on the cluster: a schedule from before its upgrade, runs that are over by their age."""
    from alfamix_core.project import rounds
    from alfamix_core.project.doctor import Finding
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    kubeflow, settings = Kubeflow(endpoint, namespace), rounds.read_settings(store)
    findings = []
    if what := schedule.outdated(kubeflow, settings, store.uri):
        findings.append(Finding("overdue", "", what, "make it again: alfamix schedule set PROJECT --cron … --renew"))
    kubeflow.in_flight(settings, store.uri)
    for run in kubeflow.stale:
        what = f"Kubeflow calls run {run.run_id} {run.state} long after its time limit; it holds nothing up"
        findings.append(Finding("orphaned", "", what, "delete it on Kubeflow's pages"))
    return findings


def clean(
    project: ProjectArgument,
    keep_rounds: Annotated[int, typer.Option(min=0, help="Number of the newest rounds that keep everything.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> Shown:
    """Delete reports, thumbnails and models of old closed rounds, what no record names, and features without a use.

    A champion and an open round are never touched; every round's numbers, queries and decisions stay.
    """
    from alfamix_core.project import cleaning, rounds

    store, now = open_project(project), datetime.now(UTC)
    rounds.read_settings(store)
    entries = (cleaning.clean if yes else cleaning.removable)(store, keep_rounds, now)
    size = sum(entry.size for entry in entries)
    keys = [entry.key for entry in entries]
    uploads = [] if yes else cleaning.left_uploads(store, now)
    given_up = [f"would give up {len(uploads)} uploads that were never finished"] if uploads else []
    verb = "deleted" if yes else "would delete"
    hint = "" if yes or not entries else "; --yes does it"
    total = f"{verb} {len(entries):,} files, {size / 1e6:.1f} MB{hint}"
    return Shown({"deleted": yes, "bytes": size, "keys": keys}, [*given_up, *keys, total])


def unlock(project: ProjectArgument) -> int:
    """Take the project's lock from a run that is dead. The dead run can commit nothing any more."""
    from alfamix_core.project import rounds

    lock = rounds.unlock(open_project(project), datetime.now(UTC))
    holder = lock.holder if lock else None
    out.print(f"unlocked: run {holder.run_id} held it" if holder else "the project was not locked")
    return 0
