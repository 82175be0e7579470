"""Rounds: when one starts, what is frozen in it, and how its record moves from state to state.

    planned ──> exported ──> closed
       │ ↑ ╲
       ↓ │  ╲──> abandoned, by a person
     failed ╱

Only the record's swap counts; it carries the fence of the lock under which it was made, and a revision that grows.
Whatever takes the lock signs the unfinished round again, so that the swap of a writer that was taken over fails.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from alfamix_core.errors import InputError, LockedError, MissingObjectError, ObjectChangedError
from alfamix_core.project import budgets, catalogue, champion, layout, lock, segments, stopping
from alfamix_core.project.ledger import Ledger, current, derive
from alfamix_core.records.lock import Holder, Lock
from alfamix_core.records.project import Project, read_project
from alfamix_core.records.round import Counts, FrozenInput, ObjectName, Outcome, Promotion, Round, number_of
from alfamix_core.records.segment import Tables
from alfamix_core.storage import Store

_SHORT = timedelta(hours=1)
"""Longest time that short work under the lock takes, if its process dies where nobody sees it."""


@dataclass(frozen=True)
class Plan:
    """What a start would come to.

    Attributes:
        decision: ``resume`` the unfinished round, ``plan`` a new one, or ``idle``.
        text: why, in words.
        project: the settings that would be used.
        last: the newest round and its tag, if there is one.
        inputs: the files that would be frozen; those of the round when it is resumed.
        counts: what they hold.
        waiting: the rounds that have an open query.
        fresh: what those of the inputs say that no segment covers.
    """

    decision: str
    text: str
    project: Project
    last: tuple[Round, str] | None
    inputs: tuple[FrozenInput, ...]
    counts: Counts
    waiting: frozenset[int] = frozenset()
    fresh: Tables | None = None

    @property
    def number(self) -> int:
        """The round that would run."""
        return (self.last[0].number if self.last else 0) + (0 if self.decision == "resume" else 1)

    @property
    def shards(self) -> int:
        """How many shards its pool is cut into: at least one."""
        settings = self.project.round
        return max(1, min(settings.max_shards, -(-self.counts.pool // settings.shard_size)))


def read_settings(store: Store) -> Project:
    """Read and check project.json.

    Raises:
        InputError: it is missing, malformed, or names an unknown strategy or parameter.
    """
    try:
        data = store.read(layout.PROJECT).data
    except MissingObjectError:
        raise InputError(f"{store.uri} is not a project: it has no project.json; `alfamix init` makes one") from None
    project = read_project(data)
    catalogue.check(project.strategy)
    return project


def numbers(store: Store) -> list[int]:
    """Return the numbers of all rounds, ascending.

    A folder store that is killed while a round is being planned leaves an empty folder; its number is given again.
    """
    found = sorted(number_of(name) for name in store.folders(layout.ROUNDS) if layout.is_round(name))
    while found and store.entry(layout.round_file(found[-1])) is None:
        found.pop()
    return found


def read(store: Store, number: int) -> tuple[Round, str]:
    """Return a round's record and its tag.

    Raises:
        InputError: there is no such round.
    """
    key = layout.round_file(number)
    try:
        stored = store.read(key)
    except MissingObjectError:
        raise InputError(f"{store.uri} has no round {number}") from None
    return Round.parse(stored.data, key), stored.tag


def read_all(store: Store) -> Iterator[Round]:
    """Yield every round, oldest first."""
    for number in numbers(store):
        yield read(store, number)[0]


def consider(store: Store, now: datetime, force: bool = False) -> Plan:
    """Say what a start would do now; writes nothing.

    Args:
        store: the project.
        now: the moment at which queries are judged to have expired.
        force: plan a round whether or not enough is new.

    Raises:
        InputError: project.json, a manifest, label batch or queue cannot be used.
    """
    project = read_settings(store)
    last = _newest(store)
    if last is not None and last[0].is_unfinished:
        unfinished = last[0]
        text = f"round {unfinished.number} is unfinished and goes on"
        return Plan("resume", text, unfinished.settings, last, unfinished.inputs, unfinished.counts)
    compared = last[0] if last is not None else None
    if compared is not None and compared.state == "abandoned":
        compared = before(store, compared.number)
    _check_classes(project, compared)
    inputs, ledger = current(store, project, now)
    counts = ledger.counts()
    decision, text = _decide(project, counts, compared, force)
    if decision == "plan" and budgets.are_set(project):
        reason = budgets.spent(project, list(read_all(store)), counts, now)
        decision, text = ("idle", reason) if reason else (decision, text)
    if decision == "plan" and project.stop.auto_stop and not force:
        advice = stopping.advise(project, list(read_all(store)), counts)
        decision, text = (decision, text) if advice.worth_it else ("idle", advice.text)
    waiting = frozenset(question.round for question in ledger.open_queries.values())
    return Plan(decision, text, project, last, inputs, counts, waiting, ledger.fresh)


def before(store: Store, number: int) -> Round | None:
    """Return the round that a round is compared with: the newest before it that was not abandoned."""
    for earlier in reversed(numbers(store)):
        if earlier < number and (record := read(store, earlier)[0]).state != "abandoned":
            return record
    return None


def _newest(store: Store) -> tuple[Round, str] | None:
    known = numbers(store)
    return read(store, known[-1]) if known else None


def _check_classes(project: Project, last: Round | None) -> None:
    """Refuse classes that models of earlier rounds would not survive: new ones may only be added at the end."""
    if last is not None:
        before = last.settings.classes
        if project.classes[: len(before)] != before:
            raise InputError(
                f"classes: those of round {last.number} must come first and in their order, new ones after them: "
                f"{', '.join(before)}; not {', '.join(project.classes)}"
            )


def _decide(project: Project, counts: Counts, last: Round | None, force: bool) -> tuple[str, str]:
    if counts.samples == 0:
        raise InputError("the project has no samples; register some with `alfamix drop`")
    if counts.queried > project.queue.max_open:
        return "idle", f"{counts.queried} queries are open, more than queue.max_open {project.queue.max_open}"
    if last is None:
        return "plan", "the first round"
    labels = counts.labelled - last.counts.labelled
    samples = counts.samples - last.counts.samples
    if force:
        return "plan", "a round was asked for"
    for found, needed, what in (
        (labels, project.round.min_new_labels, "new labels"),
        (samples, project.round.min_new_samples, "new samples"),
    ):
        if found >= needed:
            return "plan", f"{found} {what} since round {last.number}"
    return "idle", (
        f"since round {last.number} there are {max(labels, 0)} new labels and {samples} new samples; a round needs "
        f"{project.round.min_new_labels} labels or {project.round.min_new_samples} samples"
    )


def begin(
    store: Store, holder: Holder, now: datetime, force: bool = False, fresh: bool = False
) -> tuple[Round | None, Plan]:
    """Resume or plan a round for a run, holding the lock; or do nothing but tidy up after a run that was killed.

    Args:
        store: the project.
        holder: the run, and its process where it is a local one.
        now: the current moment, UTC.
        force: see ``consider``.
        fresh: give the round that is resumed another key, so that no cache knows it.

    Returns:
        The round as written, or None when idle; and the plan with its reason.

    Raises:
        LockedError: another run holds the project; nothing was written.
        InputError: see ``consider``; nothing was written.
    """
    found = lock.read(store)
    reason = lock.blocked_by(found[0] if found else None, holder.run_id, now)
    if reason:
        raise LockedError(reason)
    plan = consider(store, now, force)
    if plan.decision == "idle":
        tidy(store, plan, now)
        return None, plan
    held = lock.acquire(store, holder, now, now + timedelta(hours=plan.project.round.max_hours))
    try:
        if _newest(store) != plan.last or not segments.are_there(store, plan.inputs):
            # another run, or somebody who tidied up, has come and gone between the plan and the lock
            plan = consider(store, now, force)
        if plan.decision == "idle":
            lock.release(store, holder.run_id)
            return None, plan
        if plan.decision == "resume":
            return _resume(store, plan, holder.run_id, held.fence, fresh), plan
        if plan.last is not None:
            champion.apply(store, plan.last[0])  # its run was killed after the commit
        if plan.fresh is not None:
            plan = replace(plan, inputs=segments.merge(store, segments.compact(store, plan.inputs, plan.fresh)))
        planned = _new_round(store, plan, holder.run_id, held.fence, now)
        store.create(layout.round_file(planned.number), planned.document())
    except BaseException:
        lock.release(store, holder.run_id)
        raise
    segments.delete(store, segments.superseded(store))
    _close_finished(store, plan.waiting, held.fence)
    return planned, plan


def tidy(store: Store, plan: Plan, now: datetime) -> None:
    """Finish what a run left that was killed after its commit: its promotion, and its name on the lock."""
    if plan.last is not None:
        champion.apply(store, plan.last[0])
    lock.free_dead(store, now)


def _resume(store: Store, plan: Plan, run_id: str, fence: int, fresh: bool) -> Round:
    assert plan.last is not None
    old, tag = plan.last
    again = fresh and run_id != old.run_id  # a repeated ingest of one run raises it once
    return _swap(store, old, tag, run_id=run_id, fence=fence, state="planned", reason="", fresh=old.fresh + again)


def _new_round(store: Store, plan: Plan, run_id: str, fence: int, now: datetime) -> Round:
    number = plan.number
    serving, _ = champion.read(store)
    identity = {
        "number": number,
        "planned_at": now.isoformat(),
        "settings": plan.project.model_dump(mode="json"),
        "inputs": [item.model_dump(mode="json") for item in plan.inputs],
        "champion": serving.model,
    }
    return Round(
        number=number,
        revision=1,
        fence=fence,
        run_id=run_id,
        state="planned",
        planned_at=now,
        seed=seed_of(plan.project.seed, number),
        inputs=plan.inputs,
        settings=plan.project,
        champion=serving,
        counts=plan.counts,
        shards=plan.shards,
        digest=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )


def seed_of(project_seed: int, number: int) -> int:
    """Return a round's seed in [0, 2^31): a function of the project's seed and the number alone."""
    return int.from_bytes(hashlib.sha256(f"{project_seed}/{number}".encode()).digest()[:4], "big") >> 1


def _close_finished(store: Store, waiting: frozenset[int], fence: int) -> None:
    """Close every exported round that has no open query left, and remove what it kept for its run."""
    for number in numbers(store):
        record, tag = read(store, number)
        if record.state == "exported" and number not in waiting:
            _swap(store, record, tag, state="closed", fence=fence)
            _forget_run(store, number)


def _forget_run(store: Store, number: int) -> None:
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
    held = lock.acquire(store, lock.process(run_id, os.getpid()), now, now + _SHORT)
    try:
        _sign_unfinished(store, held.fence)
        yield held
    finally:
        lock.release(store, run_id)


def unlock(store: Store, now: datetime) -> Lock | None:
    """Take the lock from its holder, which cannot commit any more; return what was held, or None."""
    held = lock.unlock(store)
    if held is not None:
        with suppress(LockedError), holding(store, "unlock", now):
            pass
    return held


def _sign_unfinished(store: Store, fence: int) -> None:
    """Write the unfinished round again, so that the tag which its late run read no longer fits."""
    while (newest := _newest(store)) is not None and newest[0].is_unfinished and newest[0].fence < fence:
        try:
            _swap(store, *newest, fence=fence)
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
    record, tag = read(store, number)  # before the lock is looked at: whoever takes it over changes the tag
    if record.is_committed:
        return record
    held = lock.require(store, run_id, now)
    return _swap(
        store,
        record,
        tag,
        state="exported",
        reason="",
        fence=held.fence,
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
        return _swap(store, record, tag, state="failed", reason=reason)
    except ObjectChangedError:
        return read(store, number)[0]  # another run took it over at this moment


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
        newest = _newest(store)
        if newest is None or not newest[0].is_unfinished:
            raise InputError(
                f"round {newest[0].number} is {newest[0].state}; only an unfinished round can be abandoned"
                if newest
                else "there is no round to abandon"
            )
        abandoned = _swap(store, *newest, state="abandoned", reason=reason)
        _forget_run(store, abandoned.number)
    return abandoned


def ledger_of(store: Store, record: Round) -> Ledger:
    """Return the ledger that was frozen in a round."""
    return derive(store, record.settings, record.inputs, record.planned_at)


def _swap(store: Store, record: Round, tag: str, **fields: Any) -> Round:
    """Replace a record as it was read by one with other fields and the next revision."""
    new = record.model_copy(update={**fields, "revision": record.revision + 1})
    store.swap(layout.round_file(record.number), new.document(), tag)
    return new
