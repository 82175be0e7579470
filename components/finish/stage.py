"""Tidy up after a run, however it ended: record a failure, apply a committed promotion, release the lock."""

from alfamix_core.errors import MissingObjectError
from alfamix_core.project import champion, layout, lock, rounds
from alfamix_core.project.failures import read_failures
from alfamix_core.project.publish import publish
from alfamix_core.records.round import Failure
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.events import emit


def run(project_uri: str, run_id: str) -> str:
    """Judge the run by the project's records, and release the lock if this run holds it.

    Args:
        project_uri: URI of the project.
        run_id: ID of this run.

    Returns:
        ``exported``, ``failed``, ``lost`` (the round is not exported and no stage said why) or ``idle``.
    """
    store = open_store(project_uri)
    outcome, text = _judge(store, run_id)
    lock.release(store, run_id)
    emit("outcome", state=outcome, text=text)
    publish(store)
    return outcome


def _judge(store: Store, run_id: str) -> tuple[str, str]:
    early = _early_failure(store, run_id)
    known = rounds.numbers(store)
    record = rounds.read(store, known[-1]).value if known else None
    if record is None or record.run_id != run_id:
        return ("failed", early.line) if early is not None else ("idle", "no round was started")
    if record.is_committed:
        champion.apply(store, record)  # export may have been killed between the two
        return "exported", f"round {record.number} is exported"
    failures = [*([early] if early is not None else []), *read_failures(store, record.number)]
    if failures:
        reason = "; ".join(f"{f.stage}{' shard ' + f.shard if f.shard else ''}: {f.line}" for f in failures)
        state = "failed"
    else:
        reason = "the run ended before the round was exported, and no stage said why"
        state = "lost"
    rounds.mark_failed(store, record.number, run_id, reason)
    return state, f"round {record.number}: {reason}"


def _early_failure(store: Store, run_id: str) -> Failure | None:
    key = layout.early_failure(run_id)
    try:
        failure = Failure.parse(store.read(key).data, key)
    except MissingObjectError:
        return None
    # a failure of finish itself comes from an earlier attempt
    return failure if failure.stage != "finish" else None
