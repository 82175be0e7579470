"""What is wrong with a project, and what to do about it. Looks at everything, changes nothing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import champion, layout, lock, models, objects, raw, rounds, segments
from alfamix_core.project.cleaning import left_uploads
from alfamix_core.project.ledger import Ledger, current, derive, freeze
from alfamix_core.records.corrections import Released
from alfamix_core.records.project import Project
from alfamix_core.records.round import Failure, FrozenInput, Round
from alfamix_core.records.segment import CARD_FILE as SEGMENT_FILE
from alfamix_core.storage import Store

_SOON = timedelta(days=3)
_ROOTS = {
    *(layout.PROJECT, layout.CHAMPION, layout.LOCK, layout.DROPS, layout.LABELS, layout.ROUNDS),
    *(layout.RELEASED, layout.WITHDRAWN, layout.LEDGER, layout.MODELS, layout.FAILURES),
    layout.DECISIONS,
}


@dataclass(frozen=True)
class Finding:
    """Something that a person should know.

    Attributes:
        kind: ``inconsistent`` cannot go on as it is; ``orphaned`` belongs to nothing; ``locked`` by a run that is
            dead; ``overdue`` should have happened by now; ``waiting`` for a person.
        key: where, below the project's uri; empty for the project as a whole.
        what: in words.
        do: what to do about it, in words.
    """

    kind: Literal["inconsistent", "orphaned", "locked", "overdue", "waiting"]
    key: str
    what: str
    do: str


def examine(store: Store, now: datetime, deep: bool = False) -> list[Finding]:
    """Return everything that is wrong, what blocks rounds first.

    Args:
        store: the project.
        now: the moment at which locks and queries are judged.
        deep: read every file that a segment covers again and compare its digest.

    Raises:
        InputError: there is no project.
    """
    try:
        project: Project | None = rounds.read_settings(store)
    except InputError as error:
        if store.entry(layout.PROJECT) is None:
            raise
        return [Finding("inconsistent", layout.PROJECT, str(error), "mend project.json")]
    assert project is not None
    records: dict[int, Round] = {}
    found = [*_rounds(store, records)]
    ledger = None
    try:
        inputs = freeze(store)
    except InputError as error:
        found.append(Finding("inconsistent", str(error).split(" ", 1)[0], str(error), "put the file back"))
    else:
        bad = [*_files(store, project, inputs)]
        found += bad
        if not bad:
            try:
                ledger = derive(store, project, inputs, now)
            except InputError as error:
                found.append(Finding("inconsistent", "", str(error), "mend what the line names"))
    found += _champion(store, records, deep)
    found += _lock(store, records, now)
    found += _orphans(store, records, now)
    found += _segments(store, deep)
    if ledger is not None:
        found += _people(project, ledger, now)
    # a server may name a folder for a moment after its last object was deleted
    found = [each for each in found if not each.key.endswith("/") or any(True for _ in store.list(each.key))]
    order = ("inconsistent", "locked", "overdue", "orphaned", "waiting")
    return sorted(found, key=lambda each: (order.index(each.kind), each.key, each.what))


def release(store: Store, ids: Iterable[str], now: datetime) -> int:
    """Let repaired samples out of the quarantine; without ids, all of them. A sample that is still bad comes back.

    Returns:
        How many samples may be read again.

    Raises:
        InputError: a sample is not in quarantine; nothing was written.
    """
    project = rounds.read_settings(store)
    _, ledger = current(store, project, now)
    wanted = set(ids)
    for key in sorted(wanted - ledger.quarantined):
        raise InputError(f'sample "{key}" is not in quarantine')
    keys = sorted(wanted or ledger.quarantined)
    if not keys:
        return 0
    last = max(record.number for record in rounds.read_all(store) if "quarantine" in record.objects)
    data = b"".join(Released(sample_id=key, round=last, time=now).json_line() for key in keys)
    store.create_same(layout.released(f"{last:06d}-{hashlib.sha256(data).hexdigest()[:8]}"), data)
    return len(keys)


def _rounds(store: Store, records: dict[int, Round]) -> Iterator[Finding]:
    """Read every round into ``records``; yield those that cannot be read."""
    for folder in store.folders(layout.ROUNDS):
        key = f"{layout.ROUNDS}{folder}/"
        if not layout.is_round(folder):
            yield Finding("orphaned", key, "is not the folder of a round", "move it away")
            continue
        try:
            records[int(folder)] = rounds.read(store, int(folder))[0]
        except InputError as error:
            if store.entry(layout.round_file(int(folder))) is None:
                yield Finding("orphaned", key, "has no round.json", "delete it")
            else:
                yield Finding("inconsistent", key + "round.json", str(error), "put the file back")


def _files(store: Store, project: Project, inputs: Iterable[FrozenInput]) -> Iterator[Finding]:
    """Yield the first error of every file, so that all can be mended at once."""
    for item in inputs:
        try:
            if item.key.startswith(layout.LEDGER):
                segments.load(store, project, item)
            else:
                raw.read(store, project, [item])
        except InputError as error:
            yield Finding(
                "inconsistent", item.key, str(error), "mend that line, or move the file away; no round starts"
            )


def _champion(store: Store, records: Mapping[int, Round], deep: bool) -> Iterator[Finding]:
    try:
        serving, _ = champion.read(store)
    except InputError as error:
        yield Finding("inconsistent", layout.CHAMPION, str(error), "put the file back")
        return
    if serving.model and not models.is_there(store, serving.model):
        yield Finding(
            *("inconsistent", layout.model(serving.model), "of the champion is not complete"),
            "put it back, or choose another: alfamix promote",
        )
    for record in records.values():
        if deep:
            yield from _produced(store, record)
        if text := champion.waits(serving, record):
            yield Finding(
                "waiting",
                layout.round_file(record.number),
                text,
                f"alfamix promote --round {record.number}, or leave it",
            )
        elif champion.is_due(serving, record):
            yield Finding(
                "overdue", layout.round_file(record.number), "its promotion is not applied yet", "run alfamix round"
            )
    for entry in store.list(layout.DECISIONS):
        stem = entry.key.rsplit("/", 1)[-1].removesuffix(".json")
        if stem.isdecimal() and int(stem) > serving.revision:
            yield Finding(
                "inconsistent", entry.key, "was decided and not applied", "repeat alfamix promote or rollback"
            )


def _produced(store: Store, record: Round) -> Iterator[Finding]:
    """Yield what a round names and is not what it was; reports and models of old rounds may have been cleaned."""
    if record.model and models.is_there(store, record.model):
        try:
            models.verify(store, record.model)
        except InputError as error:
            yield Finding("inconsistent", layout.model(record.model), str(error), "put its files back")
    for name in record.objects:
        try:
            objects.read(store, record, name)
        except InputError as error:
            if name != "report" or store.entry(objects.key_of(record, name)) is not None:
                yield Finding("inconsistent", objects.key_of(record, name), str(error), "put the file back")


def _lock(store: Store, records: Mapping[int, Round], now: datetime) -> Iterator[Finding]:
    try:
        held = lock.read(store)
    except InputError as error:
        yield Finding("inconsistent", layout.LOCK, str(error), "delete it when no run is alive")
        return
    alive = held is not None and lock.is_alive(held[0], now)
    if text := lock.left_by(held[0] if held else None, now):
        yield Finding("locked", layout.LOCK, text, "run alfamix round, or alfamix unlock")
    last = records[max(records)] if records else None
    if last is not None and last.is_unfinished and not alive:
        why = f": {last.reason}" if last.reason else ""
        yield Finding(
            "overdue", layout.round_file(last.number), f"round {last.number} is unfinished{why}", "run alfamix round"
        )


def _orphans(store: Store, records: Mapping[int, Round], now: datetime) -> Iterator[Finding]:
    for name in store.folders():
        if name + "/" not in _ROOTS:
            yield Finding("orphaned", name + "/", "is no folder of a project", "move it away")
    for drop in store.folders(layout.DROPS):
        key = f"{layout.DROPS}{drop}/"
        if store.entry(key + layout.MANIFEST_FILE) is None:
            yield Finding(
                "orphaned", key, "has no manifest: its delivery was interrupted", "deliver it again, or delete it"
            )
    for number, record in records.items():
        if record.state == "closed" and any(True for _ in store.list(layout.run(number))):
            yield Finding("orphaned", layout.run(number), "is left of a closed round", "alfamix clean")
    for upload in left_uploads(store, now):
        yield Finding(
            *("orphaned", upload.key, f"an upload was begun at {upload.begun:%Y-%m-%d %H:%M} UTC and never finished"),
            "alfamix clean",
        )
    for entry in store.list(layout.FAILURES):
        try:
            line = Failure.parse(store.read(entry.key).data, entry.key).line
        except (InputError, MissingObjectError) as error:
            line = str(error)
        yield Finding(
            "orphaned", entry.key, f"a run stopped before it had a round: {line}", "alfamix clean, once mended"
        )


def _segments(store: Store, deep: bool) -> Iterator[Finding]:
    used = segments.usable(store)
    for name in store.folders(layout.LEDGER):
        if name not in used:
            yield Finding(
                *("orphaned", layout.segment(name), "stands for nothing: half written, of a copied project, or twice"),
                "alfamix clean",
            )
    if deep:
        for name, (card, _) in used.items():
            for each in card.covers:
                try:
                    same = raw.digest_of(store, each.key) == each.sha256
                except MissingObjectError:
                    same = False
                if not same:
                    yield Finding(
                        *(
                            "inconsistent",
                            each.key,
                            f"is not what it was when {layout.segment(name)}{SEGMENT_FILE} was made",
                        ),
                        "put it back; rounds go by what it was",
                    )


def _people(project: Project, ledger: Ledger, now: datetime) -> Iterator[Finding]:
    counts = ledger.counts()
    lifetime = timedelta(days=project.queue.expires_after_days)
    soon = Counter(each.round for each in ledger.open_queries.values() if each.asked_at + lifetime - now <= _SOON)
    for number, count in sorted(soon.items()):
        yield Finding(
            "overdue",
            layout.round_file(number),
            f"{count} of its questions expire within {_SOON.days} days",
            "answer them",
        )
    if counts.disputed:
        yield Finding("waiting", "", f"{counts.disputed} samples are disputed", "add a label event that decides")
    if ledger.unknown:
        yield Finding(
            *("waiting", "", f"{ledger.unknown} answers are about samples that no drop has delivered"),
            "deliver them; the answers count from then on",
        )
    if counts.quarantined:
        yield Finding(
            *("waiting", "", f"{counts.quarantined} samples could not be read"),
            "repair them, then alfamix doctor --release",
        )
