"""The end of a stage: its last event, its exit status, and the reason of a failure for later readers.

Kubeflow hides exit statuses and reasons, so a stage that stops on a deliberate error records its line below the round.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property

from alfamix_core.errors import AlfamixError, InputError, MissingObjectError, ObjectExistsError, StorageError, one_line
from alfamix_core.project import layout, rounds
from alfamix_core.records.round import Failure, number_of
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry import events
from alfamix_core.telemetry.events import emit
from alfamix_core.telemetry.measures import Stopwatch


@dataclass(frozen=True)
class StageContext:
    """One shard of one stage of a round, as seen from the stage's door; the project's store is opened once.

    Attributes:
        stage: Name of the stage.
        project_uri: URI of the project.
        key: Key of the round, or '' before there is a round.
        shard: Name of the shard; '' if the stage is not fanned out.
        run_id: ID of the run, where the stage knows it; otherwise the round's record has it.
    """

    stage: str
    project_uri: str
    key: str = ""
    shard: str = ""
    run_id: str = ""

    @cached_property
    def store(self) -> Store:
        """Store of the project."""
        return open_store(self.project_uri)

    def fields(self) -> dict[str, object]:
        """Return the context of the stage's events; the URI stands for a name that cannot be read."""
        name = self.project_uri
        with suppress(AlfamixError, ValueError, TypeError, KeyError):
            name = str(json.loads(self.store.read(layout.PROJECT).data)["name"])
        number = number_of(self.key) if self.key else 0
        return {"project": name, "round": number, "stage": self.stage, "shard": self.shard}

    def begin_attempt(self) -> None:
        """Mark one more attempt at the stage.

        Raises:
            InputError: This run already failed here on wrong input, so another attempt cannot help.
            StorageError: The project's store does not answer.
        """
        if self.key or self.run_id:
            self._stop_a_hopeless_retry()
        if self.key:
            try:
                self.store.mark(layout.attempt(number_of(self.key), self.stage, self.shard, uuid.uuid4().hex))
            except AlfamixError as error:
                # the metrics then miss one retry
                emit("warning", text=f"the attempt could not be marked: {error}")

    def record(self, status: int, line: str) -> None:
        """Record a failure in the project in place of an earlier run's; if the store fails, only warn.

        A run from which the round was taken over records nothing, because that would stop the run that has the round.
        """
        try:
            owner = rounds.read(self.store, number_of(self.key)).value.run_id if self.key else self.run_id
            if self.run_id not in ("", owner):
                return
            failure = Failure(stage=self.stage, shard=self.shard, run_id=owner, status=status, line=line)
            try:
                self.store.create(self._failure_key, failure.document())
            except ObjectExistsError:
                tag = self.store.read(self._failure_key).tag
                self.store.swap(self._failure_key, failure.document(), tag)
        except (StorageError, InputError) as error:
            emit("warning", text=f"the failure could not be recorded in the project: {error}")

    @property
    def _failure_key(self) -> str:
        if self.key:
            return layout.failure(number_of(self.key), self.stage, self.shard)
        return layout.early_failure(self.run_id)

    def _stop_a_hopeless_retry(self) -> None:
        try:
            failure = Failure.parse(self.store.read(self._failure_key).data, self._failure_key)
        except MissingObjectError:
            return
        run_id = self.run_id or rounds.read(self.store, number_of(self.key)).value.run_id
        if failure.status == InputError.exit_status and (failure.run_id, failure.stage) == (run_id, self.stage):
            raise InputError(failure.line)


@contextmanager
def reported(context: StageContext) -> Iterator[None]:
    """Report the start and the end of a stage; turn a deliberate error into its line, its record and its exit status.

    Raises:
        SystemExit: With status 2 for wrong input, 3 for storage or network. Any other error passes unchanged.
    """
    with events.context(**context.fields()), events.libraries_as_events():
        emit("started")
        watch = Stopwatch()
        try:
            events.form()
            yield
        except AlfamixError as error:
            line = one_line(error)
            context.record(error.exit_status, line)
            emit("failed", status=error.exit_status, line=line)
            raise SystemExit(error.exit_status) from None
        emit("finished", seconds=watch.seconds)


def read_failures(store: Store, number: int) -> list[Failure]:
    """Return the failures of the run that has the round, in order of stage."""
    record = rounds.read(store, number).value
    failures = []
    for entry in list(store.list(layout.run(number) + "failures/")):
        failure = Failure.parse(store.read(entry.key).data, entry.key)
        if failure.run_id == record.run_id:
            failures.append(failure)
    return failures


def attempts(store: Store, number: int) -> Mapping[tuple[str, str], int]:
    """Return the number of attempts at each stage and shard of a round since it was planned, by any run."""
    prefix = layout.attempts(number)
    folders = (entry.key.removeprefix(prefix).rpartition("/")[0] for entry in store.list(prefix))
    return Counter((stage, shard) for stage, _, shard in (folder.partition("-") for folder in folders))
