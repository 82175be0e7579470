"""Delete what a project no longer needs: large files of old, closed rounds, objects that no record names, features."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from alfamix_core.project import champion, features, layout, lock, objects, rounds
from alfamix_core.project.ledger import tables
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import Round
from alfamix_core.storage import Entry, Store, Upload

_UPLOADING = timedelta(days=1)  # longer than any upload takes
_COMMITTING = timedelta(days=1)  # longer than any run takes from an object to the record that names it


def clean(store: Store, keep_rounds: int, now: datetime) -> list[Entry]:
    """Compact the ledger, delete the objects that ``removable`` returns, and abort abandoned uploads.

    Args:
        store: The project.
        keep_rounds: Number of newest rounds that keep everything, at least 0.
        now: Current moment, UTC.

    Returns:
        Deleted objects.

    Raises:
        LockedError: A run, or other work, holds the project.
    """
    with rounds.holding(store, "clean", now) as own:
        assert own.holder is not None
        unfinished = [now - record.planned_at for record in rounds.read_all(store) if record.is_unfinished]
        tables.tidy(tables.open_tables(store), max([tables.KEPT, *(2 * age for age in unfinished)]))
        entries = removable(store, keep_rounds, now)
        going = {entry.key for entry in entries}
        unusable = _unusable(store, now)
        for part in features.parts_with(store, unusable):
            lock.require(store, own.holder.run_id, now)
            if part.key in going:
                features.remove_from(store, part, unusable)
        for entry in entries:
            lock.require(store, own.holder.run_id, now)  # this process may have slept past its deadline
            store.delete(entry.key)
        for upload in left_uploads(store, now):
            store.abort_upload(upload)
    return entries


def left_uploads(store: Store, now: datetime) -> list[Upload]:
    """Return the uploads that were begun more than a day ago and never finished: their process was killed."""
    return [upload for upload in store.unfinished_uploads() if upload.begun < now - _UPLOADING]


def removable(store: Store, keep_rounds: int, now: datetime) -> list[Entry]:
    """Return the objects that may be deleted; each round's record, queries, questions, decisions and metrics stay.

    Of closed rounds before the newest ``keep_rounds``: report, thumbnails and model. Models of the
    champion, of the one before it and of champions that open rounds were planned with stay, and so does everything of
    an open round. Further: leftovers of closed and abandoned rounds' runs, objects and models older than a day that no
    record names, and failures of runs without a round; features of encoders that no kept round names, and parts of
    features with a sample that was withdrawn or is in quarantine (``clean`` moves their other samples to a new part).

    Args:
        store: The project.
        keep_rounds: Number of newest rounds that keep everything, at least 0.
        now: Current moment, UTC.
    """
    records = list(rounds.read_all(store))
    kept: set[int | None] = {record.number for record in records[len(records) - min(keep_rounds, len(records)) :]}
    kept |= {record.number for record in records if record.state not in ("closed", "abandoned")}
    entries: list[Entry] = []
    for record in records:
        if record.state in ("closed", "abandoned"):
            entries += store.list(layout.run(record.number))
        entries += _objects(store, record, now, whole=record.number in kept)
    entries += _models(store, records, kept, now)
    entries += store.list(layout.FAILURES)
    entries += _features(store, records, kept, now)
    return entries


def _objects(store: Store, record: Round, now: datetime, whole: bool) -> Iterator[Entry]:
    """Yield the objects of a round that may be deleted: large ones unless it is kept whole, and unnamed ones."""
    folder = layout.objects(record.number)
    present = list(store.list(folder))
    report = {folder + digest for name, digest in record.objects.items() if name == "report"}
    small = {folder + digest for digest in record.objects.values()} - report
    pictures: set[str] = set()
    if present and "questions" in record.objects:
        lines = objects.read(store, record, "questions").splitlines()
        pictures = {question.thumbnail for _, question in read_lines(Question, lines, "questions")}
    for entry in present:
        if entry.key in report | pictures - small:
            removes = not whole
        else:
            removes = entry.key not in small and _is_old(store, entry, now)
        if removes:
            yield entry


def _features(store: Store, records: list[Round], kept: set[int | None], now: datetime) -> Iterator[Entry]:
    """Yield the parts of features that may be deleted or replaced."""
    unnamed = features.unnamed_encoders(store, records, _with_champions(store, kept))
    for encoder in unnamed:
        entries = list(store.list(layout.features(encoder)))
        if all(_is_old(store, entry, now) for entry in entries):
            yield from entries
    for part in features.parts_with(store, _unusable(store, now)):
        entry = store.entry(part.key)
        if entry is not None and part.key.split("/")[1] not in unnamed:
            yield entry


def _unusable(store: Store, now: datetime) -> set[str]:
    """Return the samples that were withdrawn or are in quarantine; none where no features are kept."""
    if not store.folders(layout.FEATURES):
        return set()
    with open_ledger(store, rounds.read_settings(store), now) as ledger:
        return {*ledger.withdrawn(), *ledger.quarantined()}


def _with_champions(store: Store, kept: set[int | None]) -> set[int | None]:
    """Return the rounds that are kept, and those of the champion and of the one before it."""
    serving = champion.read(store).value
    return {serving.round, *serving.before[-1:], *kept}


def _models(store: Store, records: list[Round], kept: set[int | None], now: datetime) -> Iterator[Entry]:
    """Yield the files of the models that may be deleted."""
    serving = champion.read(store).value
    kept = _with_champions(store, kept)
    used = {serving.model, *(record.model for record in records if record.number in kept)}
    used |= {record.champion.model for record in records if record.state not in ("closed", "abandoned")}
    named = {record.model for record in records}
    for name in store.folders(layout.MODELS):
        for entry in store.list(layout.model(name)):
            if name not in used and (name in named or _is_old(store, entry, now)):
                yield entry


def _is_old(store: Store, entry: Entry, now: datetime) -> bool:
    """Whether an object is too old for a run to name it still."""
    written = store.modified(entry.key)
    return written is not None and written < now - _COMMITTING
