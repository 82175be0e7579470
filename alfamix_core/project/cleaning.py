"""What of a project may be deleted: large files of old, closed rounds, and what belongs to nothing."""

from collections.abc import Iterable
from datetime import datetime

from alfamix_core.project import champion, layout, lock, rounds, segments
from alfamix_core.storage import Entry, Store


def removable(store: Store, keep_rounds: int, now: datetime) -> list[Entry]:
    """Return what may go; round.json, queries, decisions and metrics of every round stay.

    Of closed rounds before the newest ``keep_rounds``: report, thumbnails, what their run left, and the model. Never
    the model of the champion, of the one before it, or of a champion that an open round was planned with; nothing of
    an open round. Of the ledger: segments that stand for nothing and that no unfinished round has frozen. Failures of
    runs that had no round, unless a run is alive.

    Args:
        store: the project.
        keep_rounds: how many of the newest rounds keep everything, at least 0.
        now: the moment at which the lock is judged.
    """
    records = list(rounds.read_all(store))
    kept = {record.number for record in records[len(records) - min(keep_rounds, len(records)) :]}
    serving, _ = champion.read(store)
    models = {serving.round, *serving.before[-1:]}
    frozen: set[str] = set()
    found: list[Entry] = []
    for record in records:
        if record.state != "closed":
            kept.add(record.number)
            models.add(record.champion.round)
        if record.state in ("planned", "failed"):
            frozen |= {item.key for item in record.inputs}
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
    used = segments.usable(store)
    for name in store.folders(layout.LEDGER):
        folder = layout.segment(name)
        if name not in used and not any(key.startswith(folder) for key in frozen):
            found += store.list(folder)
    held = lock.read(store)
    if held is None or not lock.is_alive(held[0], now):
        found += store.list(layout.FAILURES)
    return found


def remove(store: Store, entries: Iterable[Entry]) -> None:
    """Delete what ``removable`` returned; deleting twice is harmless."""
    for entry in entries:
        store.delete(entry.key)
