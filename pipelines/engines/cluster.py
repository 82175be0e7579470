"""The engine that runs rounds on Kubeflow.

Whether a run is in flight is asked there, so that a restarted trigger knows it too.
"""

import functools

from rich.console import Console

from alfamix_core.errors import InputError
from alfamix_core.project import layout, lock, rounds
from alfamix_core.project.failures import read_failures
from alfamix_core.project.planning import Plan
from alfamix_core.records.round import Failure
from alfamix_core.storage import Store
from pipelines.engines.engine import Ended, StageFailure, Started
from pipelines.engines.kubeflow import Kubeflow, Run

_LOOK_SECONDS = 5.0


class Cluster:
    """Runs of one project on one Kubeflow API."""

    detached = True

    def __init__(self, store: Store, endpoint: str, namespace: str = "") -> None:
        """Take the project and the API, which is contacted when it is needed.

        Args:
            store: The project.
            endpoint: Address of the API, such as http://ml-pipeline.kubeflow:8888.
            namespace: Namespace on a multi-user Kubeflow, '' for the pod's own.
        """
        self._store, self._endpoint, self._namespace = store, endpoint, namespace

    @functools.cached_property
    def api(self) -> Kubeflow:
        """The API, connected."""
        return Kubeflow(self._endpoint, self._namespace)

    def check(self) -> None:
        """Connect to the API."""
        _ = self.api

    def start(self, plan: Plan, force: bool = False, fresh: bool = False) -> Started:
        """Start a run."""
        run_id = self.api.start(plan.project, self._store.uri, force, fresh)
        link = self.api.link(run_id)
        return Started(run_id, link, link)

    def follow(self, started: Started, console: Console, verbose: bool = False) -> Ended:
        """Show the stages until the run ends; what they print stays on the cluster."""

        def show(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        return conclusion(self._store, self.api.follow(started.run_id, _LOOK_SECONDS, show))

    def busy(self) -> bool:
        """Return whether a run of the project has not ended."""
        return bool(self.api.in_flight(rounds.read_settings(self._store), self._store.uri))

    def stale(self) -> int:
        """Return how many runs are called unfinished long after their time limit."""
        return len(self.api.stale)

    def free_lock(self) -> str:
        """Release the project's lock if Kubeflow says that the run which holds it has ended; return the run's id.

        A run that was killed there cannot do so itself. If one of its pods survives, the next run's fence stops its
        writes. A holder that this API does not know, and a process on some machine, keep the lock. So does a run that
        counts as over only because of its age: it may have been compiled with a longer limit than the caller's, and
        its lock expires by itself.
        """
        holder = lock.read(self._store).value.holder
        if holder is None or holder.pid:
            return ""
        try:
            ended = not self.api.run(holder.run_id).in_flight
        except InputError:
            return ""
        return holder.run_id if ended and lock.release(self._store, holder.run_id) else ""


def conclusion(store: Store, run: Run) -> Ended:
    """Return the outcome of a run that has ended, from the project: Kubeflow hides exit statuses and reasons."""
    succeeded = run.state == "SUCCEEDED"
    record = next((record for record in rounds.read_all(store) if record.run_id == run.run_id), None)
    if record is not None:
        number, failures = record.number, read_failures(store, record.number) if record.outcome is None else []
    else:
        key = layout.early_failure(run.run_id)
        number, failures = 0, [Failure.parse(store.read(key).data, key)] if store.entry(key) is not None else []
    reasons = tuple(StageFailure(failure.stage, failure.status, failure.line) for failure in failures)
    if record is None and succeeded and not failures:
        return Ended(succeeded, 0, "idle", "the run found nothing to do, or another run holds the project")
    return Ended(succeeded, number, failures=reasons)
