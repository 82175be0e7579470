"""Rounds: when one starts, what is frozen in it, and how its record moves from state to state.

    planned ──> exported ──> closed
       │ ↑
       ↓ │ resumed
     failed

Only the record's swap counts; it carries the fence of the lock under which it was made, and a revision that grows.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from alfamix_core.errors import InputError, LockedError, MissingObjectError
from alfamix_core.project import budgets, catalogue, champion, layout, lock, segments, stopping
from alfamix_core.project.ledger import Ledger, current, derive
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project, read_project
from alfamix_core.records.round import Counts, FrozenInput, Outcome, Round, number_of
from alfamix_core.records.segment import Tables
from alfamix_core.storage import Store


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
    if last is not None and last[0].state in ("planned", "failed"):
        unfinished = last[0]
        text = f"round {unfinished.number} is unfinished and goes on"
        return Plan("resume", text, unfinished.settings, last, unfinished.inputs, unfinished.counts)
    _check_classes(project, last[0] if last else None)
    inputs, ledger = current(store, project, now)
    counts = ledger.counts()
    decision, text = _decide(project, counts, last[0] if last else None, force)
    if decision == "plan" and budgets.are_set(project):
        reason = budgets.spent(project, list(read_all(store)), counts, now)
        decision, text = ("idle", reason) if reason else (decision, text)
    if decision == "plan" and project.stop.auto_stop and not force:
        advice = stopping.advise(project, list(read_all(store)), counts)
        decision, text = (decision, text) if advice.worth_it else ("idle", advice.text)
    waiting = frozenset(question.round for question in ledger.open_queries.values())
    return Plan(decision, text, project, last, inputs, counts, waiting, ledger.fresh)


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


def begin(store: Store, holder: Holder, now: datetime, force: bool = False) -> tuple[Round | None, Plan]:
    """Resume or plan a round for a run, holding the lock; or do nothing but take the name of a dead run off the lock.

    Args:
        store: the project.
        holder: the run, and its process where it is a local one.
        now: the current moment, UTC.
        force: see ``consider``.

    Returns:
        The round as written, or None when idle; and the plan with its reason.

    Raises:
        LockedError: another run holds the project; nothing was written.
        InputError: see ``consider``; nothing was written.
    """
    blocked = lock.read(store)
    reason = lock.blocked_by(blocked[0] if blocked else None, holder.run_id, now)
    if reason:
        raise LockedError(reason)
    plan = consider(store, now, force)
    if plan.decision == "idle":
        lock.free_dead(store, now)
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
            assert plan.last is not None
            old, tag = plan.last
            resumed = _changed(old, run_id=holder.run_id, fence=held.fence, state="planned", reason="")
            store.swap(layout.round_file(old.number), resumed.document(), tag)
            return resumed, plan
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


def _new_round(store: Store, plan: Plan, run_id: str, fence: int, now: datetime) -> Round:
    number = plan.number
    serving, _ = champion.read(store)
    identity = {
        "number": number,
        "planned_at": now.isoformat(),
        "settings": plan.project.model_dump(mode="json"),
        "inputs": [item.model_dump(mode="json") for item in plan.inputs],
        "champion": serving.round,
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
            store.swap(layout.round_file(number), _changed(record, state="closed", fence=fence).document(), tag)
            for entry in list(store.list(layout.run(number))):
                store.delete(entry.key)


def mark_exported(store: Store, number: int, run_id: str, outcome: Outcome, now: datetime) -> Round:
    """Commit the round: its queries are now asked. Repeating it changes nothing.

    Raises:
        LockedError: the run no longer holds the project.
        ObjectChangedError: another run took the round over at this very moment.
    """
    record, tag = read(store, number)
    if record.state in ("exported", "closed"):
        return record
    held = lock.require(store, run_id, now)
    exported = _changed(record, state="exported", reason="", fence=held.fence, outcome=outcome)
    store.swap(layout.round_file(number), exported.document(), tag)
    return exported


def mark_failed(store: Store, number: int, run_id: str, reason: str) -> Round:
    """Record why a round stopped; it is planned again when resumed. A round of another run is left alone."""
    record, tag = read(store, number)
    if record.state != "planned" or record.run_id != run_id:
        return record
    failed = _changed(record, state="failed", reason=reason)
    store.swap(layout.round_file(number), failed.document(), tag)
    return failed


def ledger_of(store: Store, record: Round) -> Ledger:
    """Return the ledger that was frozen in a round."""
    return derive(store, record.settings, record.inputs, record.planned_at)


def _changed(record: Round, **fields: Any) -> Round:
    return record.model_copy(update={**fields, "revision": record.revision + 1})
