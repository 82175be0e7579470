"""What runs a round: this machine, with or without containers, or a Kubeflow API.

The command and the trigger open an engine by its name and know nothing else about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from alfamix_core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from alfamix_core.project.planning import Plan
    from alfamix_core.storage import Store


class EngineName(StrEnum):
    """The engines that there are."""

    LOCAL = "local"
    DOCKER = "docker"
    KUBEFLOW = "kubeflow"

    @classmethod
    def parse(cls, text: str) -> EngineName:
        """Return the engine of a name.

        Raises:
            InputError: There is no such engine.
        """
        try:
            return cls(text)
        except ValueError:
            *others, last = cls
            raise InputError(f'--engine: must be {", ".join(others)} or {last}, not "{text}"') from None


@dataclass(frozen=True)
class Options:
    """Where and how an engine runs; each engine reads its own.

    Attributes:
        work: Folder for outputs and cache on this machine, None for the usual one.
        network: Docker's network for the containers, '' for Docker's own.
        endpoint: Address of the Kubeflow API, such as http://ml-pipeline.kubeflow:8888.
        namespace: Namespace on a multi-user Kubeflow, '' for the pod's own.
    """

    work: Path | None = None
    network: str = ""
    endpoint: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Started:
    """A run that an engine has started.

    Attributes:
        run_id: ID of the run on Kubeflow, '' on this machine.
        link: Page of the run, or its log file.
        text: Words for a log: the process and its log file, or the page of the run.
    """

    run_id: str
    link: str
    text: str


class StageFailure(NamedTuple):
    """A stage that stopped on a deliberate error: its name, its exit status and the line that says why."""

    stage: str
    status: int
    line: str


@dataclass(frozen=True)
class Ended:
    """The outcome of a run.

    Attributes:
        succeeded: Whether the engine calls the run a success.
        number: Round, 0 if the run has none.
        state: Planned, resumed, idle or refused; '' if that is not known.
        text: Reason for the state.
        failures: Stages that stopped on a deliberate error, the first one first.
    """

    succeeded: bool
    number: int = 0
    state: str = ""
    text: str = ""
    failures: tuple[StageFailure, ...] = ()

    @property
    def status(self) -> int:
        """Exit status: that of the stage that stopped the run, else 0 for a success and 1 for anything else."""
        return self.failures[0].status if self.failures else int(not self.succeeded)


class Engine(Protocol):
    """Runs the rounds of one project.

    Opening an engine contacts nothing; every method but ``stale`` may raise InputError or StorageError.
    """

    detached: bool
    """Whether a run continues when this machine stops."""

    def check(self) -> None:
        """Raise InputError or StorageError if rounds cannot run as things are."""

    def start(self, plan: Plan, force: bool = False, fresh: bool = False) -> Started:
        """Start a run; ``ingest`` decides whether it becomes the planned round.

        Args:
            plan: Plan of the round.
            force: Start a round even if too little is new.
            fresh: Let an unfinished round compute everything again, whatever is cached.
        """

    def follow(self, started: Started, console: Console, verbose: bool = False) -> Ended:
        """Show the stages of a run that this engine started, until it ends.

        Args:
            started: The run.
            console: Console on which the stages are shown.
            verbose: Whether to show all that the stages print, where the engine has it.
        """

    def busy(self) -> bool:
        """Return whether a run of the project has not ended."""

    def stale(self) -> int:
        """Return how many runs ``busy`` found unfinished that must be over by their age."""

    def free_lock(self) -> str:
        """Release the project's lock if its run has ended and only the engine can know it; return the run's id."""


def open(name: EngineName, store: Store, options: Options) -> Engine:  # noqa: A001  # read as engine.open
    """Return the engine of a name; nothing is contacted yet.

    This is the only place that compares an engine's name.

    Args:
        name: Which engine.
        store: The project.
        options: Where and how it runs.
    """
    if name is EngineName.KUBEFLOW:
        from pipelines.engines.cluster import Cluster

        return Cluster(store, options.endpoint, options.namespace)
    from pipelines.engines.this_machine import ThisMachine

    return ThisMachine(store, options.work, options.network if name is EngineName.DOCKER else None)
