"""How a stage ends: what it prints, what it leaves for whoever asks why, and its exit status.

Kubeflow hides exit statuses and reasons, so a stage that stops on a deliberate error writes its line below the round.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from alfamix_core.errors import AlfamixError, InputError, MissingObjectError, ObjectExistsError, StorageError
from alfamix_core.project import layout, rounds
from alfamix_core.records.round import Failure, number_of
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry import events, overhead
from alfamix_core.telemetry.events import emit
from alfamix_core.telemetry.measures import Stopwatch


@contextmanager
def reported(stage: str, project_uri: str, key: str = "", shard: str = "", run_id: str = "") -> Iterator[None]:
    """Run one attempt at a stage's work; turn a deliberate error into its line, its record and its exit status.

    Args:
        stage: its name.
        project_uri: of the project.
        key: the round's key, or '' before there is a round.
        shard: '' when the stage is not fanned out.
        run_id: of the run, where the stage knows it; else that of the round's record.

    Raises:
        SystemExit: with status 2 for wrong input, 3 for storage or network. Any other error passes unchanged.
    """
    with ending(stage, project_uri, key, shard, run_id):
        begin(stage, project_uri, key, shard, run_id)
        yield


@contextmanager
def ending(stage: str, project_uri: str, key: str = "", shard: str = "", run_id: str = "") -> Iterator[None]:
    """Do the part of ``reported`` that happens once, however many attempts the block makes. See there."""
    where = {"project": _name(project_uri), "round": number_of(key) if key else 0, "stage": stage, "shard": shard}
    with events.context(**where), events.libraries_as_events():
        emit("started")
        watch = Stopwatch()
        try:
            events.form()
            yield
        except AlfamixError as error:
            line = " ".join(str(error).split())
            _record(project_uri, key, run_id, stage, shard, error.exit_status, line)
            emit("failed", status=error.exit_status, line=line)
            raise SystemExit(error.exit_status) from None
        emit("finished", seconds=watch.seconds, telemetry_seconds=overhead.seconds())


def begin(stage: str, project_uri: str, key: str = "", shard: str = "", run_id: str = "") -> None:
    """Mark one more attempt at a stage, unless this very run already failed here on wrong input. See ``reported``.

    Raises:
        InputError: it did; trying again cannot help.
        StorageError: the project's store does not answer.
    """
    if key or run_id:
        _stop_a_hopeless_retry(open_store(project_uri), key, run_id, stage, shard)
    if key:
        _mark_attempt(project_uri, key, stage, shard)


def read_failures(store: Store, number: int) -> list[Failure]:
    """Return the failures of a round's present run, in order of stage."""
    record, _ = rounds.read(store, number)
    found = []
    for entry in list(store.list(layout.run(number) + "failures/")):
        failure = Failure.parse(store.read(entry.key).data, entry.key)
        if failure.run_id == record.run_id:
            found.append(failure)
    return found


def attempts(store: Store, number: int) -> Mapping[tuple[str, str], int]:
    """Return how often each stage and shard of a round was begun since the round was planned, by any run."""
    prefix = layout.attempts(number)
    folders = (entry.key.removeprefix(prefix).rpartition("/")[0] for entry in store.list(prefix))
    return Counter((stage, shard) for stage, _, shard in (folder.partition("-") for folder in folders))


def _name(project_uri: str) -> str:
    """Return the project's name, its uri where project.json cannot be read; whoever works with it checks it."""
    with overhead.counted(), suppress(AlfamixError, ValueError, TypeError, KeyError):
        return str(json.loads(open_store(project_uri).read(layout.PROJECT).data)["name"])
    return project_uri


def _mark_attempt(project_uri: str, key: str, stage: str, shard: str) -> None:
    """Leave a mark that the stage was begun; one that cannot be left is one retry that the metrics do not know."""
    with overhead.counted():
        try:
            place = layout.attempt(number_of(key), stage, shard, uuid.uuid4().hex)
            open_store(project_uri).mark(place)
        except AlfamixError as error:
            emit("warning", text=f"the attempt could not be marked: {error}")


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
        emit("warning", text=f"the failure could not be recorded in the project: {error}")
