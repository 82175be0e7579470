"""One recurring run per project on a Kubeflow API.

The API has no update, deleting a recurring run kills the run that it has in flight, any answer can be lost, and two
people may set a schedule together. So the new recurring run is made first and is enabled from its beginning; only then
are the older ones disabled, and deleted once they have no run in flight. The number in a recurring run's name orders
them, and nobody disables the newest that is enabled: wherever a command dies, one stays enabled, and the next ``set``
finishes the work.

A recurring run embeds the workflow as it was compiled when it was made, with the images of that release's driver and
launcher (kubeflow/pipelines issue 13933): after an upgrade of Kubeflow its runs fail in their first step. So the
release is written into the description, and a schedule from another release is renewed.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kfp_server_api import ApiException, V2beta1RecurringRun

from alfamix_core.errors import StorageError
from alfamix_core.records.project import Project
from pipelines.engines.kubeflow import Kubeflow, parameters
from pipelines.services.cron import Cron

_ENABLED = "ENABLE"
_MADE_ON = re.compile(r" Made on Kubeflow Pipelines (\S+)\Z")
_NUMBER = re.compile(r"-([0-9]{1,18})-[0-9a-f]{8}\Z")
_PAGE = 100
_ATTEMPTS = 5


@dataclass(frozen=True)
class Schedule:
    """A recurring run of the project.

    Attributes:
        recurring_run_id: ID of the recurring run.
        cron: Cron expression, as it was set.
        enabled: Whether it starts runs; one that was replaced does not.
        version: ID of the pipeline's version.
        release: Release of the API on which it was made, '' if that is not known.
    """

    recurring_run_id: str
    cron: str
    enabled: bool
    version: str
    release: str = ""


@dataclass(frozen=True)
class Change:
    """What a command did.

    Attributes:
        schedule: Schedule in force now; None after a removal.
        unchanged: Whether it was in force already.
        deleted: IDs of the recurring runs that are gone.
        left: IDs of the recurring runs that stay disabled, because each has a run in flight.
    """

    schedule: Schedule | None
    unchanged: bool
    deleted: tuple[str, ...]
    left: tuple[str, ...]


def show(kubeflow: Kubeflow, project: Project, project_uri: str) -> list[Schedule]:
    """Return the project's schedules: the one in force first, then the disabled ones, each kind by its id."""
    schedules = [_schedule(row) for row in _rows(kubeflow, project, project_uri)]
    return sorted(schedules, key=lambda schedule: (not schedule.enabled, schedule.recurring_run_id))


def put(kubeflow: Kubeflow, project: Project, project_uri: str, cron: Cron, renew: bool = False) -> Change:
    """Make this the project's only schedule: no catching up, one run at a time.

    A recurring run that is right in every field is kept; one that differs is replaced, no matter who changed it.

    Args:
        kubeflow: The API.
        project: Settings of the project.
        project_uri: URI of the project.
        cron: When runs start.
        renew: Make a new recurring run even if nothing differs.

    Raises:
        InputError: The API refuses the schedule; nothing has changed.
        StorageError: The API failed, or other commands change the schedule at the same time; the schedule that was in
            force still is, and setting it again finishes the work.
    """
    content = _content(kubeflow, project_uri, cron)
    made: set[str] = set()
    to_renew: set[str] = set()
    lost: StorageError | None = None
    for attempt in range(_ATTEMPTS):
        rows = _rows(kubeflow, project, project_uri)
        if renew and not attempt:
            to_renew = {str(row.recurring_run_id) for row in rows}
        newest = max((row for row in rows if row.mode == _ENABLED), key=_order, default=None)
        if newest is not None and str(newest.recurring_run_id) in to_renew:
            newest = None
        if newest is not None and (newest.display_name in made or _matches(newest, content)):
            deleted, left = _retire(kubeflow, project, project_uri, [row for row in rows if row is not newest])
            return Change(_schedule(newest), not made, deleted, left)
        if lost is not None:
            raise lost
        name = _name(project, project_uri, 1 + max((_order(row)[0] for row in rows), default=0), content)
        made.add(name)
        experiment = kubeflow.experiment(project)
        try:
            kubeflow.ask(partial(kubeflow.client.create_recurring_run, experiment, name, **content))
        except StorageError as error:
            lost = error  # it may have been made although the answer was lost: the next listing shows it
    raise StorageError(f"{kubeflow.endpoint}: other commands change this schedule at the same time; set it again")


def outdated(kubeflow: Kubeflow, project: Project, project_uri: str) -> str:
    """Return what is wrong with the schedule in force since an upgrade of Kubeflow, '' for nothing."""
    release = kubeflow.api_version()
    for schedule in show(kubeflow, project, project_uri):
        if schedule.enabled and schedule.release != release:
            made = f"on Kubeflow Pipelines {schedule.release}" if schedule.release else "on an unknown release"
            return (
                f"the schedule {schedule.cron} (recurring run {schedule.recurring_run_id}) was made {made} and the API "
                f"is {release or 'of an unknown release'}: its runs start with the driver of the old release"
            )
    return ""


def remove(kubeflow: Kubeflow, project: Project, project_uri: str) -> Change:
    """Start no more runs by schedule; a run in flight continues, and its recurring run stays disabled until it ends."""
    rows = _rows(kubeflow, project, project_uri)
    deleted, left = _retire(kubeflow, project, project_uri, rows)
    return Change(None, not rows, deleted, left)


def _rows(kubeflow: Kubeflow, project: Project, project_uri: str) -> list[V2beta1RecurringRun]:
    """Return the recurring runs of the project as the API describes them."""
    experiment = kubeflow.experiment(project)
    pages = kubeflow.pages(
        lambda token: kubeflow.client.list_recurring_runs(token, _PAGE, experiment_id=experiment),
        "recurring_runs",
        lambda row: (row, parameters(row).get("project_uri")),
    )
    return [row for page in pages for row, uri in page if uri == project_uri]


def _retire(
    kubeflow: Kubeflow, project: Project, project_uri: str, rows: list[V2beta1RecurringRun]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Disable recurring runs, and delete those without a run in flight; return the ids of both."""
    for row in rows:
        if row.mode == _ENABLED:
            _unless_gone(kubeflow, kubeflow.client.disable_recurring_run, row)
    if not rows:
        return (), ()
    # deleting a recurring run kills its run, and one that is over by age may live under a longer limit than ours
    busy = {run.recurring_run_id for run in (*kubeflow.in_flight(project, project_uri), *kubeflow.stale)}
    idle = [row for row in rows if row.recurring_run_id not in busy]
    for row in idle:
        _unless_gone(kubeflow, kubeflow.client.delete_recurring_run, row)
    left = (str(row.recurring_run_id) for row in rows if row.recurring_run_id in busy)
    return tuple(str(row.recurring_run_id) for row in idle), tuple(left)


def _unless_gone(kubeflow: Kubeflow, change: Callable[[str], object], row: V2beta1RecurringRun) -> None:
    """Change a recurring run; nothing is left to do if another command has deleted it meanwhile."""

    def ask() -> None:
        try:
            change(row.recurring_run_id)
        except ApiException as error:
            if error.status != 404:
                raise

    kubeflow.ask(ask)


def _content(kubeflow: Kubeflow, project_uri: str, cron: Cron) -> dict[str, Any]:
    """Return all fields of the recurring run except its name, as arguments of the client."""
    version = kubeflow.version()
    release = kubeflow.api_version()
    text = f"Rounds of {project_uri}: {cron.words()}."
    return {
        "description": f"{text} Made on Kubeflow Pipelines {release}" if release else text,
        "cron_expression": cron.text,
        "start_time": None,
        "end_time": None,
        "interval_second": None,
        "max_concurrency": 1,
        "no_catchup": True,
        "params": {"project_uri": project_uri, "force": False, "fresh": False},
        "pipeline_root": None,
        "pipeline_id": version.pipeline_id,
        "version_id": version.version_id,
        "service_account": kubeflow.platform.service_account or None,
    }


def _matches(row: V2beta1RecurringRun, content: dict[str, Any]) -> bool:
    """Return whether a recurring run has the content in every field.

    Where no service account is requested, the API fills in its own; the digest in the name then shows that none was.
    """
    trigger, reference, config = row.trigger, row.pipeline_version_reference, row.runtime_config
    cron = trigger.cron_schedule if trigger is not None else None
    periodic = trigger.periodic_schedule if trigger is not None else None
    actual = {
        "description": row.description,
        "cron_expression": cron and cron.cron,
        "start_time": cron and cron.start_time,
        "end_time": cron and cron.end_time,
        "interval_second": periodic and periodic.interval_second,
        "max_concurrency": row.max_concurrency,
        "no_catchup": row.no_catchup,
        "pipeline_root": config and config.pipeline_root,
        "pipeline_id": reference and reference.pipeline_id,
        "version_id": reference and reference.pipeline_version_id,
        "service_account": row.service_account if content["service_account"] else None,
    }
    named = str(row.display_name or "").endswith(f"-{_digest(content)}") and parameters(row) == content["params"]
    return named and all(str(value or "") == str(content[key] or "") for key, value in actual.items())


def _name(project: Project, project_uri: str, number: int, content: dict[str, Any]) -> str:
    """Return a name made of the project, a number that orders recurring runs, and a digest of the content."""
    uri = hashlib.sha256(project_uri.encode()).hexdigest()[:8]
    return f"alfamix-{project.name}-{uri}-{number}-{_digest(content)}"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _order(row: V2beta1RecurringRun) -> tuple[int, str]:
    """Return a sort key that puts the newest recurring run last; one that we did not name counts as the oldest."""
    number = _NUMBER.search(str(row.display_name or ""))
    return int(number[1]) if number else 0, str(row.recurring_run_id)


def _schedule(row: V2beta1RecurringRun) -> Schedule:
    made_on = _MADE_ON.search(row.description or "")
    cron = row.trigger.cron_schedule if row.trigger is not None else None
    reference = row.pipeline_version_reference
    return Schedule(
        recurring_run_id=str(row.recurring_run_id),
        cron=str((cron and cron.cron) or ""),
        enabled=row.mode == _ENABLED,
        version=str(reference.pipeline_version_id) if reference is not None else "",
        release=made_on[1] if made_on else "",
    )
