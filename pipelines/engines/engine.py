"""What starts a run for the trigger: this machine, with or without containers, or a Kubeflow API."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console

from alfamix_core.project.planning import Plan
from alfamix_core.project.rounds import read_settings
from alfamix_core.storage import Store
from pipelines.engines import kubeflow, work_folder
from pipelines.engines import progress as watch


class Engine(Protocol):
    """Starts runs of one project."""

    def start(self, plan: Plan) -> str:
        """Start a run and return where a person finds it; ``ingest`` decides whether it becomes the planned round."""

    def busy(self) -> bool:
        """Whether a run that was started has not ended."""

    def stale(self) -> int:
        """Return how many runs the engine called unfinished, when asked last, that must be over by their age."""

    def free_lock(self) -> str:
        """Let go of the project's lock if its run has ended and only the engine can know it; return the run's id."""

    def wait(self) -> int:
        """Wait for the run, where it would die with this process; return its exit status."""


class Local:
    """Runs on this machine, in a process of its own that outlives this one."""

    def __init__(self, store: Store, work: Path | None, engine: str = "local", network: str = "") -> None:
        """Say where and how.

        Args:
            store: the project.
            work: the folder for outputs and cache, None for the usual one.
            engine: local for stages as processes, docker for containers.
            network: of the containers, '' for Docker's own.
        """
        self._store, self._engine, self._network = store, engine, network
        self._root = work if work is not None else work_folder.default(store.uri)
        self._child: subprocess.Popen[bytes] | None = None
        self._log = Path()

    def start(self, plan: Plan) -> str:
        """Start a run; what earlier rounds left in the work folder is removed."""
        work_folder.forget_before(self._root, plan.number)
        self._log = work_folder.new_log(self._root, plan.number, datetime.now(UTC))
        folder = work_folder.of_round(self._root, plan.number)
        self._child = watch.start(self._store.uri, folder, self._log, False, self._engine, self._network)
        return f"process {self._child.pid}, log {self._log}"

    def busy(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.poll() is None

    def stale(self) -> int:
        """Return 0: a process of this machine runs or does not."""
        return 0

    def free_lock(self) -> str:
        """Do nothing: a dead process of this machine does not hold the lock."""
        return ""

    def wait(self) -> int:
        """Show the stages until the run ends; return the status of the stage that stopped it, 1 for none known."""
        if self._child is None:
            return 0
        run = watch.follow(self._child, self._log, Console(stderr=True, highlight=False), verbose=False)
        for stage, status, line in run.failures[:1]:
            Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"alfamix: {stage}: {line}")
            return status
        return 1 if self._child.returncode else 0


class Cluster:
    """Runs on Kubeflow. Whether one is in flight is asked there, so a restarted trigger knows it too."""

    def __init__(self, store: Store, api: kubeflow.Kubeflow) -> None:
        """Take the project and the API."""
        self._store = store
        self._kubeflow = api

    def start(self, plan: Plan) -> str:
        """Start a run."""
        run_id = self._kubeflow.start(plan.project, self._store.uri)
        return self._kubeflow.link(run_id)

    def busy(self) -> bool:
        """Whether a run of the project has not ended."""
        return bool(self._kubeflow.in_flight(read_settings(self._store), self._store.uri))

    def stale(self) -> int:
        """Return how many runs are called unfinished long after their time limit."""
        return len(self._kubeflow.stale)

    def free_lock(self) -> str:
        """Let go of the lock of a run that has ended on the cluster without doing so."""
        return kubeflow.free_lock(self._kubeflow, self._store)

    def wait(self) -> int:
        """Return at once: the cluster goes on without us."""
        return 0
