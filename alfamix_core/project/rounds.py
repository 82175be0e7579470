"""Rounds: how the record of a round moves from state to state, and the lock under which it does.

    planned ──> exported ──> closed
       │ ↑ ╲
       ↓ │  ╲──> abandoned, by a person
     failed ╱

Only the record's swap counts; it carries the fence of the lock under which it was made, and a revision that grows.
Whatever takes the lock signs the unfinished round again, so that the swap of a writer that was taken over fails.
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
        InputError: it is missing, malformed, or names an unknown strategy or parameter; or the project has the layout
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

    A folder store that is killed while a round is being planned leaves an empty folder; its number is given again.
    """
    found = sorted(number_of(name) for name in store.folders(layout.ROUNDS) if layout.is_round(name))
    while found and store.entry(layout.round_file(found[-1])) is None:
        found.pop()
    return found


def read(store: Store, number: int) -> Versioned[Round]:
    """Return a round's record.

    Raises:
        InputError: there is no such round.
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
    """Return the round that a round is compared with: the newest before it that was not abandoned."""
    for earlier in reversed(numbers(store)):
        if earlier < number and (record := read(store, earlier).value).state != "abandoned":
            return record
    return None


def newest(store: Store) -> Versioned[Round] | None:
    """Return the newest round, or None before the first."""
    known = numbers(store)
    return read(store, known[-1]) if known else None


def forget_run(store: Store, number: int) -> None:
    """Remove what a round keeps only while it is worked on."""
    for entry in list(store.list(layout.run(number))):
        store.delete(entry.key)


@contextmanager
def holding(store: Store, what: str, now: datetime) -> Iterator[Lock]:
    """Hold the project's lock for short work.

    Args:
        store: the project.
        what: the work in one word: part of the name under which the lock is held.
        now: the current moment, UTC.

    Raises:
        LockedError: a run, or other work, holds the project; one line says which.
    """
    run_id = f"{what}-{uuid.uuid4().hex[:12]}"
    own = lock.acquire(store, lock.process(run_id, os.getpid()), now, now + _SHORT)
    try:
        _sign_unfinished(store, own.fence)
        yield own
    finally:
        lock.release(store, run_id)


def unlock(store: Store, now: datetime) -> Lock | None:
    """Take the lock from its holder, which cannot commit any more; return what was held, or None."""
    taken = lock.unlock(store)
    if taken is not None:
        with suppress(LockedError), holding(store, "unlock", now):
            pass
    return taken


def _sign_unfinished(store: Store, fence: int) -> None:
    """Write the unfinished round again, so that the tag which its late run read no longer fits."""
    while (last := newest(store)) is not None and last.value.is_unfinished and last.value.fence < fence:
        try:
            swap(store, *last, fence=fence)
        except ObjectChangedError:
            continue  # its run swapped it at this very moment


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
    """Commit the round: what it produced exists from now on, and its queries are asked. Repeating it changes nothing.

    Args:
        store: the project.
        number: of the round.
        run_id: of the run, which must hold the project's lock.
        outcome: what the round came to.
        now: the current moment, UTC.
        objects: SHA-256 of what was written, by name.
        promotion: what was proposed about its model.

    Raises:
        LockedError: the run no longer holds the project.
        ObjectChangedError: another run took the round over at this very moment.
    """
    record, tag = read(store, number)  # before the look at the lock, since a take-over changes the tag
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
    """Record why a round stopped; it is planned again when resumed. A round of another run is left alone."""
    record, tag = read(store, number)
    if record.state != "planned" or record.run_id != run_id:
        return record
    try:
        return swap(store, record, tag, state="failed", reason=reason)
    except ObjectChangedError:
        return read(store, number).value  # another run took it over at this moment


def abandon(store: Store, reason: str, now: datetime) -> Round:
    """Close the unfinished round without a result: it asked nothing, and what came since counts for the next one.

    Args:
        store: the project.
        reason: the person's words.
        now: the current moment, UTC.

    Raises:
        LockedError: a run works on it.
        InputError: no round is unfinished.
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
    """Replace a record as it was read by one with other fields and the next revision."""
    new = record.model_copy(update={**fields, "revision": record.revision + 1})
    store.swap(layout.round_file(record.number), new.document(), tag)
    return new
