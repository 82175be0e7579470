"""What of a project may be deleted: large files of old, closed rounds, and what belongs to nothing."""

import os
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from alfamix_core.errors import LockedError
from alfamix_core.project import champion, layout, lock, rounds, segments
from alfamix_core.records.round import Round
from alfamix_core.records.segment import CARD_FILE
from alfamix_core.storage import Entry, Store, Upload

_UPLOADING = timedelta(days=1)  # longer than any upload takes
_HELD = timedelta(minutes=10)  # by a clean that dies on another host


def clean(store: Store, keep_rounds: int, now: datetime) -> list[Entry]:
    """Merge small segments of the ledger, delete what ``removable`` names, give up uploads that nobody goes on with.

    Returns:
        The objects that were deleted.

    It holds the project's lock meanwhile. While a run has it, segments and failures stay as they are.

    Args:
        store: the project.
        keep_rounds: how many of the newest rounds keep everything, at least 0.
        now: the moment at which the lock is judged.
    """
    run_id = f"clean-{uuid.uuid4().hex[:12]}"
    try:
        lock.acquire(store, lock.process(run_id, os.getpid()), now, now + _HELD)
    except LockedError:
        run_id = ""
    try:
        if run_id and not _frozen(rounds.read_all(store)):
            segments.merge(store, segments.mergeable(store))
        entries = removable(store, keep_rounds, now, run_id)
        for entry in sorted(entries, key=lambda entry: not entry.key.endswith(CARD_FILE)):
            store.delete(entry.key)
        for upload in left_uploads(store, now):
            store.abort_upload(upload)
    finally:
        lock.release(store, run_id)
    return entries


def left_uploads(store: Store, now: datetime) -> list[Upload]:
    """Return the uploads that were begun more than a day ago and never finished: their process was killed."""
    return [upload for upload in store.unfinished_uploads() if upload.begun < now - _UPLOADING]


def removable(store: Store, keep_rounds: int, now: datetime, run_id: str = "") -> list[Entry]:
    """Return what may go; round.json, queries, decisions and metrics of every round stay.

    Of closed rounds before the newest ``keep_rounds``: report, thumbnails, what their run left, and the model. Never
    the model of the champion, of the one before it, or of a champion that an open round was planned with; nothing of
    an open round. Unless a run is alive: segments of the ledger that stand for nothing and that no unfinished round has
    frozen, and failures of runs that had no round.

    Args:
        store: the project.
        keep_rounds: how many of the newest rounds keep everything, at least 0.
        now: the moment at which the lock is judged.
        run_id: of who asks and may hold the lock.
    """
    records = list(rounds.read_all(store))
    kept = {record.number for record in records[len(records) - min(keep_rounds, len(records)) :]}
    serving, _ = champion.read(store)
    models = {serving.round, *serving.before[-1:]}
    found: list[Entry] = []
    for record in records:
        if record.state != "closed":
            kept.add(record.number)
            models.add(record.champion.round)
    for record in records:
        number = record.number
        if record.state == "closed":
            found += store.list(layout.run(number))
        if number in kept:
            continue
        report = store.entry(layout.report(number))
        found += [report] if report is not None else []
        found += store.list(layout.thumbnails(number))
        if number not in models:
            found += store.list(layout.model(number))
    held = lock.read(store)
    if not lock.blocked_by(held[0] if held else None, run_id, now):
        used, frozen = segments.usable(store), _frozen(records)
        for name in store.folders(layout.LEDGER):
            folder = layout.segment(name)
            if name not in used and folder + CARD_FILE not in frozen:
                found += store.list(folder)
        found += store.list(layout.FAILURES)
    return found


def _frozen(records: Iterable[Round]) -> set[str]:
    """Return the inputs of unfinished rounds."""
    return {item.key for record in records if record.state in ("planned", "failed") for item in record.inputs}
