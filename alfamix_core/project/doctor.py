"""Findings about a project, with a remedy each. Everything is read, nothing is changed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import champion, features, layout, lock, models, objects, rounds
from alfamix_core.project.cleaning import left_uploads
from alfamix_core.project.ledger.audit import Difference, differences
from alfamix_core.project.ledger.ledger import Ledger, open_ledger
from alfamix_core.records.champion import Champion
from alfamix_core.records.lock import Lock
from alfamix_core.records.project import Project
from alfamix_core.records.round import Failure, Round
from alfamix_core.records.tables import SCHEMAS
from alfamix_core.storage import Store

T = TypeVar("T")

_SOON = timedelta(days=3)
_ROOTS = {
    *(layout.PROJECT, layout.CHAMPION, layout.LOCK, layout.DROPS, layout.LABELS, layout.ROUNDS),
    *(layout.FILES, layout.RELEASED, layout.WITHDRAWN, layout.LEDGER, layout.MODELS, layout.FAILURES),
    *(layout.DECISIONS, layout.FEATURES),
}


@dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
        kind: ``inconsistent``: rounds cannot run before it is fixed; ``orphaned``: it belongs to nothing; ``locked``: a
            dead run holds the lock; ``overdue``: it should have happened by now; ``waiting``: for a person.
        key: Key below the project's uri; empty for the project as a whole.
        what: Human-readable finding.
        do: Human-readable remedy.
    """

    kind: Literal["inconsistent", "orphaned", "locked", "overdue", "waiting"]
    key: str
    what: str
    do: str


inconsistent = partial(Finding, "inconsistent")
orphaned = partial(Finding, "orphaned")
overdue = partial(Finding, "overdue")
waiting = partial(Finding, "waiting")


def examine(store: Store, now: datetime, deep: bool = False) -> list[Finding]:
    """Return all findings, those that block rounds first.

    Args:
        store: The project.
        now: Moment at which locks and queries are judged, UTC.
        deep: Whether to read the whole inbox and all models, objects and features again, and compare the ledger with
            the inbox.

    Raises:
        InputError: There is no project.
    """
    try:
        project = rounds.read_settings(store)
    except InputError as error:
        if store.entry(layout.PROJECT) is None:
            raise
        return [inconsistent(layout.PROJECT, str(error), "fix project.json")]
    records: dict[int, Round] = {}
    findings = [*_rounds(store, records)]
    try:
        with open_ledger(store, project, now) as ledger:
            ledger.check_classes()
            findings += [*_inbox(ledger), *_people(project, ledger, now)]
        if deep:
            findings += [_difference(difference) for difference in differences(store, project, now)]
    except InputError as error:
        findings.append(inconsistent(layout.LEDGER, str(error), "fix what the line names"))
    for record in records.values() if deep else ():
        findings += _produced(store, record)
    if serving := _sound(partial(champion.read, store), layout.CHAMPION, "put the file back", findings):
        findings += _champion(store, serving.value, records)
    if current := _sound(partial(lock.read, store), layout.LOCK, "delete it when no run is alive", findings):
        findings += _lock(current.value, records, now)
    findings += _orphans(store, records, now)
    if deep:
        remedy = "delete it; the next round computes its samples again"
        findings += [Finding("orphaned", key, what, remedy) for key, what in features.faults(store)]
    # a server may list a folder for a moment after its last object was deleted
    findings = [
        finding
        for finding in findings
        if finding.kind != "orphaned" or not finding.key.endswith("/") or any(True for _ in store.list(finding.key))
    ]
    order = ("inconsistent", "locked", "overdue", "orphaned", "waiting")
    return sorted(findings, key=lambda finding: (order.index(finding.kind), finding.key, finding.what))


def _sound(read: Callable[[], T], key: str, do: str, findings: list[Finding]) -> T | None:
    """Return what is read, or None and a finding with the remedy if it is not what its format says."""
    try:
        return read()
    except InputError as error:
        findings.append(inconsistent(key, str(error), do))
        return None


def _rounds(store: Store, records: dict[int, Round]) -> Iterator[Finding]:
    """Read every round into ``records``; yield those that cannot be read."""
    for folder in store.folders(layout.ROUNDS):
        key = f"{layout.ROUNDS}{folder}/"
        if not layout.is_round(folder):
            yield orphaned(key, "is not the folder of a round", "move it away")
            continue
        try:
            records[int(folder)] = rounds.read(store, int(folder)).value
        except InputError as error:
            if store.entry(layout.round_file(int(folder))) is None:
                yield orphaned(key, "has no round.json", "delete it")
            else:
                yield inconsistent(key + "round.json", str(error), "put the file back")


def _inbox(ledger: Ledger) -> Iterator[Finding]:
    """Yield the inbox files that cannot be used, and those that were changed after they were loaded."""
    for key, line, reason in ledger.set_aside():
        what = "a line is set aside" if line else "is set aside"
        yield waiting(key, f"{what}: {reason}", "fix it; it is tried again when its name or bytes change")
    for file in ledger.inbox():
        if file.vanished:
            yield waiting(
                file.key,
                f"{file.vanished} of its lines that were loaded are gone or changed; their content still counts",
                "withdraw samples or answers that must not count, with a file of their own",
            )
    for key in ledger.unread.deleted if ledger.unread is not None else ():
        yield waiting(key, "was loaded and is deleted; its content still counts", "put it back, or leave it")
    if ids := ledger.repeated_event_ids():
        yield waiting(
            "",
            f"{len(ids)} event ids came back with other content and count as other events, such as {ids[0]!r}",
            "give each event its own id: two tools may number their events alike",
        )
    if count := ledger.unasked_answers():
        yield waiting(
            "",
            f"{count} answers decide nothing, because no round asked for them",
            "have a round ask for them, or set queue.accept_unasked for the train and val splits",
        )


def _difference(difference: Difference) -> Finding:
    """Describe a difference between a table and its sources."""
    key, rows = layout.table(difference.table), f"{difference.rows} rows, such as {difference.example!r},"
    where = f" of {difference.key}" if difference.key else ""
    if difference.kind == "vanished":
        return waiting(key, f"{rows} are no longer in the inbox: their file{where} was changed", "leave it")
    what = {
        "foreign": f"{rows} stand in no line{where}: another program has written to the table",
        "missing": f"{rows}{where} are missing: another program has removed them",
        "twice": f"{rows} stand there twice: another program has written to the table",
    }[difference.kind]
    remedy = (
        "restore ledger/ from a backup; without one delete it: the next round loads what the inbox still holds, and "
        "what was deleted or changed there is lost"
    )
    return inconsistent(key, what, remedy)


def _champion(store: Store, serving: Champion, records: Mapping[int, Round]) -> Iterator[Finding]:
    try:
        champion.check_rounds(serving, max(rounds.numbers(store), default=0))
    except InputError as error:
        yield inconsistent(layout.CHAMPION, str(error), "put back the newer rounds")
    if serving.model and not models.is_there(store, serving.model):
        yield inconsistent(
            layout.model(serving.model),
            "the champion's model is not complete",
            "put it back, or choose another: alfamix promote",
        )
    for record in records.values():
        if text := champion.waits(serving, record):
            yield waiting(
                layout.round_file(record.number), text, f"alfamix promote --round {record.number}, or leave it"
            )
        elif champion.is_due(serving, record):
            yield overdue(layout.round_file(record.number), "its promotion is not applied yet", "run alfamix round")
    for entry in store.list(layout.DECISIONS):
        stem = entry.key.rsplit("/", 1)[-1].removesuffix(".json")
        if stem.isdecimal() and int(stem) > serving.revision:
            yield inconsistent(entry.key, "was decided and not applied", "repeat alfamix promote or rollback")


def _produced(store: Store, record: Round) -> list[Finding]:
    """Return the damaged objects and models of a round; reports and models of old rounds may have been cleaned."""
    findings: list[Finding] = []
    if record.model and models.is_there(store, record.model):
        key = layout.model(record.model)
        _sound(partial(models.verify, store, record.model), key, "put its files back", findings)
    for name in record.objects:
        key = objects.key_of(record, name)
        if name != "report" or store.entry(key) is not None:
            _sound(partial(objects.read, store, record, name), key, "put the file back", findings)
    return findings


def _lock(current: Lock, records: Mapping[int, Round], now: datetime) -> Iterator[Finding]:
    alive = lock.is_alive(current, now)
    if text := lock.left_by(current, now):
        yield Finding("locked", layout.LOCK, text, "run alfamix round, or alfamix unlock")
    last = records[max(records)] if records else None
    if last is not None and last.is_unfinished and not alive:
        why = f": {last.reason}" if last.reason else ""
        yield overdue(layout.round_file(last.number), f"round {last.number} is unfinished{why}", "run alfamix round")


def _orphans(store: Store, records: Mapping[int, Round], now: datetime) -> Iterator[Finding]:
    for name in store.folders():
        if name + "/" not in _ROOTS:
            yield orphaned(name + "/", "is not a folder of a project", "move it away")
    for name in store.folders(layout.LEDGER):
        if name not in SCHEMAS:
            yield orphaned(layout.table(name) + "/", "is not a table of the ledger", "move it away")
    for drop in store.folders(layout.DROPS):
        key = f"{layout.DROPS}{drop}/"
        if store.entry(key + layout.MANIFEST_FILE) is None:
            yield orphaned(key, "has no manifest: its delivery was interrupted", "deliver it again, or delete it")
    for number, record in records.items():
        if record.state == "closed" and any(True for _ in store.list(layout.run(number))):
            yield orphaned(layout.run(number), "is left over from a closed round", "alfamix clean")
    for upload in left_uploads(store, now):
        yield orphaned(
            upload.key, f"an upload was begun at {upload.begun:%Y-%m-%d %H:%M} UTC and never finished", "alfamix clean"
        )
    for entry in store.list(layout.FAILURES):
        try:
            line = Failure.parse(store.read(entry.key).data, entry.key).line
        except (InputError, MissingObjectError) as error:
            line = str(error)
        yield orphaned(entry.key, f"a run stopped before it had a round: {line}", "alfamix clean, once it is fixed")


def _people(project: Project, ledger: Ledger, now: datetime) -> Iterator[Finding]:
    counts = ledger.counts()
    lifetime = timedelta(days=project.queue.expires_after_days)
    soon = Counter(question.round for question in ledger.open_queries() if question.asked_at + lifetime - now <= _SOON)
    for number, count in sorted(soon.items()):
        yield overdue(
            layout.round_file(number), f"{count} of its questions expire within {_SOON.days} days", "answer them"
        )
    if counts.disputed:
        yield waiting("", f"{counts.disputed} samples are disputed", "add a label event that decides")
    if unknown := ledger.unknown_answers():
        yield waiting(
            "",
            f"{unknown} answers are about samples that no drop has delivered",
            "deliver them; the answers count from then on",
        )
    if counts.quarantined:
        yield waiting(
            "", f"{counts.quarantined} samples could not be read", "repair them, then alfamix doctor --release"
        )
