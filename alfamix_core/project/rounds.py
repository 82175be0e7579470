"""Rounds: the transitions of a round's record, and the lock under which they happen.

    planned ──> exported ──> closed
       │ ↑ ╲
       ↓ │  ╲──> abandoned, by a person
     failed ╱

Only the record's swap counts; the record has the fence of the lock under which it was written, and a growing revision.
Each take-over of the lock signs the unfinished round again, so that the earlier writer's swap fails.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from alfamix_core.errors import InputError, LockedError, MissingObjectError, ObjectChangedError
from alfamix_core.project import layout, lock
from alfamix_core.project.versioned import Versioned
from alfamix_core.records.lock import Lock
from alfamix_core.records.project import Project, read_project
from alfamix_core.records.round import ObjectName, Outcome, Promotion, Round, number_of
from alfamix_core.storage import Store

_SHORT = timedelta(hours=1)
"""Longest time for which short work holds the lock if its process dies unseen."""


def read_settings(store: Store) -> Project:
    """Read and check project.json.

    Raises:
        InputError: It is missing, malformed, or names an unknown strategy or parameter; or the project has the layout
            of an earlier version.
    """
    try:
        data = store.read(layout.PROJECT).data
    except MissingObjectError:
        raise InputError(f"{store.uri} is not a project: it has no project.json; `alfamix init` makes one") from None
    if old := layout.earlier(store):
        raise InputError(
            f"{store.uri} has the layout of an earlier version, which is not read any more: it has {old}; make a new "
            "project with `alfamix init`, and deliver its samples and labels there"
        )
    return read_project(data)


def numbers(store: Store) -> list[int]:
    """Return the numbers of all rounds, ascending.

    A folder store that is killed while a round is planned leaves an empty folder; its number is used again.
    """
    known = sorted(number_of(name) for name in store.folders(layout.ROUNDS) if layout.is_round(name))
    while known and store.entry(layout.round_file(known[-1])) is None:
        known.pop()
    return known


def read(store: Store, number: int) -> Versioned[Round]:
    """Return a round's record.

    Raises:
        InputError: There is no such round.
    """
    key = layout.round_file(number)
    try:
        stored = store.read(key)
    except MissingObjectError:
        raise InputError(f"{store.uri} has no round {number}") from None
    return Versioned(Round.parse(stored.data, key), stored.tag)


def read_all(store: Store) -> Iterator[Round]:
    """Yield every round, oldest first."""
    for number in numbers(store):
        yield read(store, number).value


def before(store: Store, number: int) -> Round | None:
    """Return the newest round before a number that was not abandoned."""
    for earlier in reversed(numbers(store)):
        if earlier < number and (record := read(store, earlier).value).state != "abandoned":
            return record
    return None


def newest(store: Store) -> Versioned[Round] | None:
    """Return the newest round, or None before the first."""
    known = numbers(store)
    return read(store, known[-1]) if known else None


def forget_run(store: Store, number: int) -> None:
    """Remove a round's temporary objects."""
    for entry in list(store.list(layout.run(number))):
        store.delete(entry.key)


@contextmanager
def holding(store: Store, what: str, now: datetime) -> Iterator[Lock]:
    """Hold the project's lock for short work.

    Args:
        store: The project.
        what: The work in one word: part of the name under which the lock is held.
        now: Current moment, UTC.

    Raises:
        LockedError: A run, or other work, holds the project; one line names it.
    """
    run_id = f"{what}-{uuid.uuid4().hex[:12]}"
    own = lock.acquire(store, lock.process(run_id, os.getpid()), now, now + _SHORT)
    try:
        _sign_unfinished(store, own.fence)
        yield own
    finally:
        lock.release(store, run_id)


def unlock(store: Store, now: datetime) -> Lock | None:
    """Take the lock from its holder, which cannot commit any more; return the lock, or None if it was free."""
    taken = lock.unlock(store)
    if taken is not None:
        with suppress(LockedError), holding(store, "unlock", now):
            pass
    return taken


def _sign_unfinished(store: Store, fence: int) -> None:
    """Write the unfinished round again, so that the tag of its late run no longer matches."""
    while (last := newest(store)) is not None and last.value.is_unfinished and last.value.fence < fence:
        try:
            swap(store, *last, fence=fence)
        except ObjectChangedError:
            continue  # its run swapped it at this moment


def mark_exported(
    store: Store,
    number: int,
    run_id: str,
    outcome: Outcome,
    now: datetime,
    *,
    objects: Mapping[ObjectName, str] | None = None,
    promotion: Promotion | None = None,
) -> Round:
    """Commit the round: its objects exist from now on, and its queries are asked. Repeating it changes nothing.

    Args:
        store: The project.
        number: Number of the round.
        run_id: Id of the run, which must hold the project's lock.
        outcome: Outcome of the round.
        now: Current moment, UTC.
        objects: SHA-256 of the round's objects, by name.
        promotion: Proposal about its model.

    Raises:
        LockedError: The run no longer holds the project.
        ObjectChangedError: Another run took the round over at this moment.
    """
    record, tag = read(store, number)  # before the lock is read, since a take-over changes the tag
    if record.is_committed:
        return record
    own = lock.require(store, run_id, now)
    return swap(
        store,
        record,
        tag,
        state="exported",
        reason="",
        fence=own.fence,
        objects=dict(objects or {}),
        model=promotion.model if promotion else "",
        promotion=promotion,
        outcome=outcome,
    )


def mark_failed(store: Store, number: int, run_id: str, reason: str) -> Round:
    """Record why a round stopped; resuming plans it again. A round of another run is left alone."""
    record, tag = read(store, number)
    if record.state != "planned" or record.run_id != run_id:
        return record
    try:
        return swap(store, record, tag, state="failed", reason=reason)
    except ObjectChangedError:
        return read(store, number).value  # another run took it over at this moment


def abandon(store: Store, reason: str, now: datetime) -> Round:
    """Close the unfinished round without a result: it asked nothing, and its news counts for the next one.

    Args:
        store: The project.
        reason: Reason in the person's words.
        now: Current moment, UTC.

    Raises:
        LockedError: A run works on it.
        InputError: No round is unfinished.
    """
    with holding(store, "abandon", now):
        last = newest(store)
        if last is None or not last.value.is_unfinished:
            raise InputError(
                f"round {last.value.number} is {last.value.state}; only an unfinished round can be abandoned"
                if last
                else "there is no round to abandon"
            )
        abandoned = swap(store, *last, state="abandoned", reason=reason)
        forget_run(store, abandoned.number)
    return abandoned


def swap(store: Store, record: Round, tag: str, **fields: Any) -> Round:
    """Replace a record, as it was read, by one with other fields and the next revision."""
    new = record.model_copy(update={**fields, "revision": record.revision + 1})
    store.swap(layout.round_file(record.number), new.document(), tag)
    return new
