"""One recurring run per project on a Kubeflow API.

The API has no update, and deleting a recurring run kills the run that it has in flight. So a schedule is replaced by
disabling the old one, making the new one, and deleting the old one once it has no run in flight; until then it stays
behind, disabled, and the next ``set`` or ``remove`` clears it away.

A recurring run embeds the workflow as it was compiled when it was made, with the images of that release's driver and
launcher (kubeflow/pipelines issue 13933): after an upgrade of Kubeflow its runs fail in their first step. So the
release is written into the description, and a schedule from another release is renewed.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from alfamix_core.errors import AlfamixError
from alfamix_core.records.project import Project
from pipelines.engines.kubeflow import Kubeflow, parameters
from pipelines.services.cron import Cron

_ENABLED = "ENABLE"
_MADE_ON = re.compile(r" Made on Kubeflow Pipelines (\S+)\Z")
_PAGE = 100


@dataclass(frozen=True)
class Schedule:
    """A recurring run of the project.

    Attributes:
        recurring_run_id: of the recurring run.
        cron: when, as it was set.
        enabled: whether it starts runs; one that was replaced does not.
        version: id of the pipeline's version.
        release: release of the API on which it was made, '' where that is not known.
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
        schedule: what is in force now; None after a removal.
        unchanged: it was in force already.
        deleted: recurring runs that are gone.
        left: recurring runs that stay disabled, for each still has a run in flight.
    """

    schedule: Schedule | None
    unchanged: bool
    deleted: tuple[str, ...]
    left: tuple[str, ...]


def show(kubeflow: Kubeflow, project: Project, project_uri: str) -> list[Schedule]:
    """Return the project's schedules: the one in force first, then the disabled ones, each kind by its id."""
    experiment = kubeflow.experiment(project)
    listed = kubeflow.pages(
        lambda token: kubeflow.client.list_recurring_runs(token, _PAGE, experiment_id=experiment), "recurring_runs"
    )
    found = [_schedule(each) for each in listed if parameters(each).get("project_uri") == project_uri]
    return sorted(found, key=lambda schedule: (not schedule.enabled, schedule.recurring_run_id))


def put(kubeflow: Kubeflow, project: Project, project_uri: str, cron: Cron, renew: bool = False) -> Change:
    """Make this the project's only schedule: no catching up, one run at a time.

    Repeating it changes nothing, unless Kubeflow was upgraded in between.

    When the new one cannot be made, those that were in force are enabled again.

    Args:
        kubeflow: the API.
        project: its settings.
        project_uri: which the runs are given.
        cron: when.
        renew: make a new one even if nothing differs.
    """
    pipeline, version = kubeflow.version()
    release = kubeflow.api_version()
    old = show(kubeflow, project, project_uri)
    wanted = (cron.text, version, release)
    found = (each for each in old if each.enabled and (each.cron, each.version, each.release) == wanted)
    same = None if renew else next(found, None)
    replaced = [each for each in old if each is not same]
    disabled = [each for each in replaced if each.enabled]
    for each in disabled:
        _disable(kubeflow, each)
    if same is None:
        name = f"alfamix-{project.name}-{hashlib.sha256(project_uri.encode()).hexdigest()[:8]}"
        try:
            experiment = kubeflow.experiment(project)
            made = kubeflow.ask(
                lambda: kubeflow.client.create_recurring_run(
                    experiment,
                    name,
                    description=_description(project_uri, cron, release),
                    cron_expression=cron.text,
                    max_concurrency=1,
                    no_catchup=True,
                    params={"project_uri": project_uri, "force": False, "fresh": False},
                    pipeline_id=pipeline,
                    version_id=version,
                    service_account=kubeflow.platform.service_account or None,
                )
            )
        except AlfamixError:
            for each in disabled:
                kubeflow.ask(partial(kubeflow.client.enable_recurring_run, each.recurring_run_id))
            raise
        current = _schedule(made)
    else:
        current = same
    deleted, left = _clear(kubeflow, project, project_uri, replaced)
    return Change(current, same is not None, deleted, left)


def outdated(kubeflow: Kubeflow, project: Project, project_uri: str) -> str:
    """Return what is wrong with the schedule in force since an upgrade of Kubeflow, '' for nothing."""
    release = kubeflow.api_version()
    for each in show(kubeflow, project, project_uri):
        if each.enabled and each.release != release:
            made = f"on Kubeflow Pipelines {each.release}" if each.release else "on an unknown release"
            return (
                f"the schedule {each.cron} (recurring run {each.recurring_run_id}) was made {made} and the API is "
                f"{release or 'of an unknown release'}: its runs start with the driver of the old release"
            )
    return ""


def remove(kubeflow: Kubeflow, project: Project, project_uri: str) -> Change:
    """Start no more runs by schedule; a run in flight goes on, and its recurring run stays disabled till then."""
    old = show(kubeflow, project, project_uri)
    for each in old:
        if each.enabled:
            _disable(kubeflow, each)
    deleted, left = _clear(kubeflow, project, project_uri, old)
    return Change(None, not old, deleted, left)


def _disable(kubeflow: Kubeflow, schedule: Schedule) -> None:
    kubeflow.ask(partial(kubeflow.client.disable_recurring_run, schedule.recurring_run_id))


def _clear(
    kubeflow: Kubeflow, project: Project, project_uri: str, old: list[Schedule]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete the disabled ones that have no run in flight; return the ids of the deleted and of those left."""
    if not old:
        return (), ()
    # deleting a recurring run kills its run, and one that is over by age may live under a longer limit than ours
    busy = {run.recurring_run_id for run in (*kubeflow.in_flight(project, project_uri), *kubeflow.stale)}
    deleted, left = [], []
    for each in old:
        if each.recurring_run_id in busy:
            left.append(each.recurring_run_id)
        else:
            kubeflow.ask(partial(kubeflow.client.delete_recurring_run, each.recurring_run_id))
            deleted.append(each.recurring_run_id)
    return tuple(deleted), tuple(left)


def _description(project_uri: str, cron: Cron, release: str) -> str:
    text = f"Rounds of {project_uri}: {cron.words()}."
    return f"{text} Made on Kubeflow Pipelines {release}" if release else text


def _schedule(recurring: Any) -> Schedule:
    made_on = _MADE_ON.search(recurring.description or "")
    trigger = recurring.trigger
    cron = trigger.cron_schedule.cron if trigger is not None and trigger.cron_schedule is not None else ""
    reference = recurring.pipeline_version_reference
    return Schedule(
        recurring_run_id=str(recurring.recurring_run_id),
        cron=str(cron or ""),
        enabled=recurring.mode == _ENABLED,
        version=str(reference.pipeline_version_id) if reference is not None else "",
        release=made_on[1] if made_on else "",
    )
