"""`alfamix schedule set`, `show` and `remove`: the recurring run on a Kubeflow API."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import EndpointOption, JsonOption, NamespaceOption, ProjectArgument, open_project
from pipelines.cli.printing import Shown, out

if TYPE_CHECKING:
    from pipelines.services.cron import Cron
    from pipelines.services.schedule import Change


def set_schedule(
    project: ProjectArgument,
    cron: Annotated[
        str, typer.Option(help='Six cron fields in UTC, seconds first: "0 0 6 * * *" is 06:00:00 every day.')
    ],
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    plan: Annotated[bool, typer.Option("--plan", help="Print when runs would start; set nothing.")] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make the recurring run again even if nothing differs.")
    ] = False,
) -> int:
    """Start a run at fixed times, in place of an earlier schedule. A run that is in flight continues.

    Missed times are not caught up, and a project has one run at a time.
    """
    from alfamix_core.project import rounds
    from pipelines.services import cron as crons

    expression = crons.parse(cron)
    store = open_project(project)
    settings = rounds.read_settings(store)
    out.print(f"{expression.text}: {expression.words()}")
    out.print("\n".join(_next_times(expression)))
    if plan:
        return 0
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    change = schedule.put(Kubeflow(endpoint, namespace), settings, store.uri, expression, renew)
    assert change.schedule is not None
    out.print(f"{'no change: ' if change.unchanged else ''}set as recurring run {change.schedule.recurring_run_id}")
    _print_cleared(change)
    return 0


def show(
    project: ProjectArgument,
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    as_json: JsonOption = False,
) -> Shown:
    """Show the schedule in force, its next three times, and what earlier ones left."""
    from alfamix_core.project import rounds
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import cron, schedule

    store = open_project(project)
    schedules = schedule.show(Kubeflow(endpoint, namespace), rounds.read_settings(store), store.uri)
    lines = [] if any(entry.enabled for entry in schedules) else ["no schedule is set"]
    for entry in schedules:
        if not entry.enabled:
            lines.append(f"recurring run {entry.recurring_run_id}: disabled, replaced; a later set deletes it")
            continue
        try:
            expression = cron.parse(entry.cron)
        except InputError as error:  # made or edited by other means
            lines.append(f"recurring run {entry.recurring_run_id}: {error}")
            continue
        lines.append(f"recurring run {entry.recurring_run_id}: {entry.cron}: {expression.words()}")
        lines += _next_times(expression)
    return Shown(schedules, lines)


def remove(project: ProjectArgument, endpoint: EndpointOption = "", namespace: NamespaceOption = "") -> int:
    """Start no more runs at fixed times. A run that is in flight continues."""
    from alfamix_core.project import rounds
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    store = open_project(project)
    change = schedule.remove(Kubeflow(endpoint, namespace), rounds.read_settings(store), store.uri)
    out.print("no schedule was set" if change.unchanged else "no more runs start by schedule")
    _print_cleared(change)
    return 0


def _next_times(expression: "Cron") -> list[str]:
    return [f"  {at:%A %Y-%m-%d %H:%M:%S} UTC" for at in expression.after(datetime.now(UTC), 3)]


def _print_cleared(change: "Change") -> None:
    for recurring_run_id in change.deleted:
        out.print(f"deleted recurring run {recurring_run_id}")
    for recurring_run_id in change.left:
        out.print(
            f"recurring run {recurring_run_id} has a run in flight or may have just begun one: disabled; "
            "the next set or remove deletes it"
        )
