"""How a stage ends: what it prints, what it leaves for whoever asks why, and its exit status.

Kubeflow hides exit statuses and reasons, so a stage that stops on a deliberate error writes its line below the round.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alfamix_core.errors import AlfamixError, InputError, MissingObjectError, ObjectExistsError, StorageError
from alfamix_core.project import layout, rounds
from alfamix_core.records.round import Failure, number_of
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.events import emit
from alfamix_core.telemetry.measures import Stopwatch


@contextmanager
def reported(stage: str, project_uri: str, key: str = "", shard: str = "", run_id: str = "") -> Iterator[None]:
    """Run a stage's work; turn a deliberate error into its line, its record and its exit status.

    Args:
        stage: its name.
        project_uri: of the project.
        key: the round's key, or '' before there is a round.
        shard: '' when the stage is not fanned out.
        run_id: of the run, where the stage knows it; else that of the round's record.

    Raises:
        SystemExit: with status 2 for wrong input, 3 for storage or network. Any other error passes unchanged.
    """
    emit("started", stage=stage, shard=shard)
    watch = Stopwatch()
    try:
        if key or run_id:
            _stop_a_hopeless_retry(open_store(project_uri), key, run_id, stage, shard)
        yield
    except AlfamixError as error:
        line = " ".join(str(error).split())
        _record(project_uri, key, run_id, stage, shard, error.exit_status, line)
        emit("failed", stage=stage, shard=shard, status=error.exit_status, line=line)
        sys.stderr.write(f"alfamix {stage}{' shard ' + shard if shard else ''}: {line}\n")
        raise SystemExit(error.exit_status) from None
    emit("finished", stage=stage, shard=shard, seconds=watch.seconds)


def read_failures(store: Store, number: int) -> list[Failure]:
    """Return the failures of a round's present run, in order of stage."""
    record, _ = rounds.read(store, number)
    found = []
    for entry in list(store.list(layout.run(number) + "failures/")):
        failure = Failure.parse(store.read(entry.key).data, entry.key)
        if failure.run_id == record.run_id:
            found.append(failure)
    return found


def _place(key: str, run_id: str, stage: str, shard: str) -> str:
    return layout.failure(number_of(key), stage, shard) if key else layout.early_failure(run_id)


def _stop_a_hopeless_retry(store: Store, key: str, run_id: str, stage: str, shard: str) -> None:
    """Stop at once when this very run already failed here on wrong input: trying again cannot help."""
    place = _place(key, run_id, stage, shard)
    try:
        failure = Failure.parse(store.read(place).data, place)
    except MissingObjectError:
        return
    run_id = run_id or rounds.read(store, number_of(key))[0].run_id
    if failure.status == InputError.exit_status and (failure.run_id, failure.stage) == (run_id, stage):
        raise InputError(failure.line)


def _record(project_uri: str, key: str, run_id: str, stage: str, shard: str, status: int, line: str) -> None:
    """Leave the failure in the project, replacing an earlier run's; a store that is down keeps only the log line.

    A run from which the round was taken over leaves nothing: it would stop the run that has the round now.
    """
    try:
        store = open_store(project_uri)
        if key:
            owner = rounds.read(store, number_of(key))[0].run_id
            if run_id not in ("", owner):
                return
            run_id = owner
        place = _place(key, run_id, stage, shard)
        failure = Failure(stage=stage, shard=shard, run_id=run_id, status=status, line=line)
        try:
            store.create(place, failure.document())
        except ObjectExistsError:
            store.swap(place, failure.document(), store.read(place).tag)
    except (StorageError, InputError) as error:
        sys.stderr.write(f"alfamix {stage}: the failure could not be recorded in the project: {error}\n")
