"""The engine that runs rounds on this machine, each in a process of its own that outlives the one that started it."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from alfamix_core.project.planning import Plan
from alfamix_core.storage import Store
from pipelines.engines import progress, work_folder
from pipelines.engines.engine import Ended, Started


class ThisMachine:
    """Runs stages as processes or as containers."""

    detached = False

    def __init__(self, store: Store, work: Path | None = None, network: str | None = None) -> None:
        """Take the project.

        Args:
            store: The project.
            work: Folder for outputs and cache, None for the usual one.
            network: Docker's network for the containers, '' for Docker's own; None for stages as processes.
        """
        self._store, self._network = store, network
        self._root = work if work is not None else work_folder.default(store.uri)
        self._child: subprocess.Popen[bytes] | None = None

    def check(self) -> None:
        """Raise InputError if containers are wanted and cannot run here."""
        if self._network is not None:
            from pipelines.engines import containers

            containers.check(self._store, self._network)

    def start(self, plan: Plan, force: bool = False, fresh: bool = False) -> Started:
        """Start a run; what earlier rounds left in the work folder is removed."""
        work_folder.forget_before(self._root, plan.number)
        log = work_folder.new_log(self._root, plan.number, datetime.now(UTC))
        folder = work_folder.of_round(self._root, plan.number)
        self._child = progress.start(self._store.uri, folder, log, force, fresh, self._network)
        return Started("", str(log), f"process {self._child.pid}, log {log}")

    def follow(self, started: Started, console: Console, verbose: bool = False) -> Ended:
        """Show the stages until the run ends; an interrupt ends the run."""
        assert self._child is not None, "a run is followed after it was started"
        run = progress.follow(self._child, Path(started.link), console, verbose)
        succeeded = self._child.returncode == 0
        return Ended(succeeded, run.number, run.state, run.text, tuple(run.failures))

    def busy(self) -> bool:
        """Return whether the process runs."""
        return self._child is not None and self._child.poll() is None

    def stale(self) -> int:
        """Return 0: a process of this machine runs or does not."""
        return 0

    def free_lock(self) -> str:
        """Do nothing: a dead process of this machine does not hold the lock."""
        return ""
