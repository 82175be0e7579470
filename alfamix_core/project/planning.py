"""Decide when a round starts, and freeze its inputs. Only ``ingest`` does that, and writes to the ledger."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from alfamix_core.errors import InputError, LockedError, ObjectChangedError
from alfamix_core.project import budgets, champion, layout, lock, rounds, stopping
from alfamix_core.project.ledger import load
from alfamix_core.project.ledger.ledger import Ledger, open_ledger
from alfamix_core.project.ledger.tables import open_tables
from alfamix_core.project.versioned import Versioned
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Round
from alfamix_core.storage import Store
from alfamix_core.telemetry.events import emit

_NO_SAMPLES = "the project has no samples; register some with `alfamix drop`"
_LOADS = 5  # attempts of a load that others overtake
_QUIET = ("samples", "events", "corrections")  # while these are unchanged, no label and no sample is new


@dataclass(frozen=True)
class Plan:
    """The outcome of a start.

    Attributes:
        decision: ``resume`` the unfinished round, ``plan`` a new one, or ``idle``.
        text: Human-readable reason.
        project: Settings in use.
        last: Newest round, if there is one.
        counts: Counts of the samples; those of the round if it is resumed.
        open_rounds: Rounds with an open question.
        versions: Versions of the ledger's tables to freeze.
        ledger: Identity of that ledger.
    """

    decision: Literal["resume", "plan", "idle"]
    text: str
    project: Project
    last: Versioned[Round] | None
    counts: Counts
    open_rounds: frozenset[int] = frozenset()
    versions: Mapping[str, int] | None = None
    ledger: str = ""

    @property
    def number(self) -> int:
        """Number of the round that runs."""
        return (self.last.value.number if self.last else 0) + (0 if self.decision == "resume" else 1)

    @property
    def shards(self) -> int:
        """Number of shards of its pool, at least one."""
        settings = self.project.round
        return max(1, min(settings.max_shards, -(-self.counts.pool // settings.shard_size)))


def consider(store: Store, now: datetime, force: bool = False) -> Plan:
    """Return what a start would do now; write nothing.

    Args:
        store: The project.
        now: Moment at which questions expire, UTC.
        force: Whether to plan a round even if too little is new.

    Raises:
        InputError: project.json cannot be used, or a table is not what ingest wrote.
    """
    project, last = rounds.read_settings(store), rounds.newest(store)
    if last is not None and last.value.is_unfinished:
        return _resumption(last)
    _check_classes(project, _compared(store, last))
    with open_ledger(store, project, now) as ledger:
        return _judge(store, ledger, last, force)


def begin(
    store: Store, holder: Holder, now: datetime, force: bool = False, fresh: bool = False
) -> tuple[Round | None, Plan]:
    """Load the inbox, then resume or plan a round for a run that holds the lock; or stay idle.

    If nothing is new, only the table ``inbox`` is opened and no lock is taken.

    Args:
        store: The project.
        holder: The run, and its process if it is a local one.
        now: Current moment, UTC.
        force: See ``consider``.
        fresh: Whether to give a resumed round another key, so that no cache knows it.

    Returns:
        The round as written, or None if idle; and the plan with its reason.

    Raises:
        LockedError: Another run holds the project; nothing was written.
        InputError: See ``consider``; no round was planned.
    """
    if reason := lock.blocked_by(lock.read(store).value, holder.run_id, now):
        raise LockedError(reason)
    project, last = rounds.read_settings(store), rounds.newest(store)
    if text := _nothing_new(store, project, last, force):
        finish_killed(store, last, now)
        return None, Plan("idle", text, project, last, last.value.counts if last else Counts())
    own = lock.acquire(store, holder, now, now + timedelta(hours=project.round.max_hours))
    try:
        last = rounds.newest(store)  # another run may have finished before this one took the lock
        if last is not None and last.value.is_unfinished:
            return _resume(store, last, holder.run_id, own.fence, fresh), _resumption(last)
        if last is not None:
            champion.apply(store, last.value)
        _check_classes(project, _compared(store, last))
        with loading(store, project, holder.run_id, now) as ledger:
            plan = _judge(store, ledger, last, force)
        if plan.decision == "idle":
            lock.release(store, holder.run_id)
            return None, plan
        planned = _new_round(store, plan, holder.run_id, own.fence, now)
        store.create(layout.round_file(planned.number), planned.document())
    except BaseException:
        lock.release(store, holder.run_id)
        raise
    _close_finished(store, plan.open_rounds, own.fence)
    return planned, plan


def finish_killed(store: Store, last: Versioned[Round] | None, now: datetime) -> None:
    """Finish the work of a run that was killed after its commit: its promotion, and the lock."""
    if last is not None:
        champion.apply(store, last.value)
    lock.free_dead(store, now)


@contextmanager
def loading(store: Store, project: Project, run_id: str, now: datetime) -> Iterator[Ledger]:
    """Open the ledger after loading what is new in the inbox and what rounds committed, exactly once.

    Args:
        store: The project.
        project: Its settings.
        run_id: Id of the run, which holds the project's lock.
        now: Moment of the load, UTC.

    Raises:
        LockedError: The run no longer holds the project.
        ObjectChangedError: Other loads came first repeatedly.
    """
    for attempt in range(1, _LOADS + 1):
        with open_ledger(store, project, now) as ledger:
            lock.require(store, run_id, now)
            try:
                ledger.commit(store)
            except ObjectChangedError:
                if attempt == _LOADS:
                    raise
                continue  # the next attempt sees the other load
            for key, line, reason in ledger.set_aside():
                if ledger.coming is not None and key in ledger.coming.files:
                    emit("set_aside", key=key, line=line, text=reason)
            yield ledger
            return


def _nothing_new(store: Store, project: Project, last: Versioned[Round] | None, force: bool) -> str:
    """Explain why no round is due, from listings and the table ``inbox`` alone; empty if these cannot decide."""
    if last is None:
        _check_delivered(store, project)
        return ""
    earlier = last.value
    if force or not earlier.is_committed or not project.round.min_new_labels:
        return ""
    if not project.round.min_new_samples or project.classes != earlier.settings.classes:
        return ""
    tables = open_tables(store, names=("inbox",))
    if load.look(store, project, tables):
        return ""
    versions = tables.covered()
    if tables.identity != earlier.ledger or any(versions.get(name) != earlier.versions.get(name) for name in _QUIET):
        return ""
    return _too_little(earlier, project, 0, 0)


def _check_delivered(store: Store, project: Project) -> None:
    """Refuse a project without any delivery, before anything is written.

    Raises:
        InputError: There is no sample.
    """
    tables = open_tables(store, names=("inbox",))
    if not tables.handles and not load.look(store, project, tables):
        raise InputError(_NO_SAMPLES)


def _resumption(last: Versioned[Round]) -> Plan:
    record = last.value
    return Plan("resume", f"round {record.number} is unfinished and continues", record.settings, last, record.counts)


def _judge(store: Store, ledger: Ledger, last: Versioned[Round] | None, force: bool) -> Plan:
    """Decide between a new round and none."""
    project, counts = ledger.settings, ledger.counts()
    ledger.check_classes()
    if counts.samples == 0:
        raise InputError(_NO_SAMPLES)
    due, text = _is_due(ledger, _compared(store, last), force)
    if counts.queried > project.queue.max_open:
        due, text = False, f"{counts.queried} queries are open, more than queue.max_open {project.queue.max_open}"
    if due and budgets.are_set(project):
        spent = budgets.spent(project, list(rounds.read_all(store)), counts, ledger.now)
        due, text = (False, spent) if spent else (due, text)
    if due and project.stop.auto_stop and not force:
        advice = stopping.advise(project, list(rounds.read_all(store)), counts)
        due, text = (due, text) if advice.worth_it else (False, advice.text)
    if due:
        champion.check_rounds(champion.read(store).value, last.value.number if last else 0)
    decision: Literal["plan", "idle"] = "plan" if due else "idle"
    return Plan(decision, text, project, last, counts, ledger.open_rounds(), ledger.versions, ledger.tables.identity)


def _is_due(ledger: Ledger, earlier: Round | None, force: bool) -> tuple[bool, str]:
    if earlier is None:
        return True, "the first round"
    if force:
        return True, "a round was asked for"
    settings = ledger.settings.round
    since = ledger.since(earlier)
    samples, labels = ledger.new_samples(since), ledger.touched(since)
    if labels >= settings.min_new_labels:  # an upper bound, cheaper than the exact number
        labels = ledger.new_labels(since)
    for count, needed, what in (
        (labels, settings.min_new_labels, "new labels"),
        (samples, settings.min_new_samples, "new samples"),
    ):
        if count >= needed:
            return True, f"{count} {what} since round {earlier.number}"
    return False, _too_little(earlier, ledger.settings, labels, samples)


def _too_little(earlier: Round, project: Project, labels: int, samples: int) -> str:
    return (
        f"since round {earlier.number} there are {labels} new labels and {samples} new samples; a round needs "
        f"{project.round.min_new_labels} labels or {project.round.min_new_samples} samples"
    )


def _compared(store: Store, last: Versioned[Round] | None) -> Round | None:
    """Return the newest round that was not abandoned: news is counted since its plan."""
    return rounds.before(store, last.value.number + 1) if last else None


def _check_classes(project: Project, last: Round | None) -> None:
    """Refuse classes that models of earlier rounds would not survive: new ones may only be added at the end."""
    if last is not None:
        before = last.settings.classes
        if project.classes[: len(before)] != before:
            raise InputError(
                f"classes: those of round {last.number} must come first and in their order, new ones after them: "
                f"{', '.join(before)}; not {', '.join(project.classes)}"
            )


def _resume(store: Store, last: Versioned[Round], run_id: str, fence: int, fresh: bool) -> Round:
    record = last.value
    again = fresh and run_id != record.run_id  # a run that repeats its ingest raises it once
    return rounds.swap(store, *last, run_id=run_id, fence=fence, state="planned", reason="", fresh=record.fresh + again)


def _new_round(store: Store, plan: Plan, run_id: str, fence: int, now: datetime) -> Round:
    serving = champion.read(store).value
    versions = dict(plan.versions or {})
    identity = {
        "number": plan.number,
        "planned_at": now.isoformat(),
        "settings": plan.project.model_dump(mode="json"),
        "ledger": [plan.ledger, versions],
        "champion": serving.model,
    }
    return Round(
        number=plan.number,
        revision=1,
        fence=fence,
        run_id=run_id,
        state="planned",
        planned_at=now,
        seed=seed_of(plan.project.seed, plan.number),
        versions=versions,
        ledger=plan.ledger,
        settings=plan.project,
        champion=serving,
        counts=plan.counts,
        shards=plan.shards,
        digest=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )


def seed_of(project_seed: int, number: int) -> int:
    """Return a round's seed in [0, 2^31), which depends on the project's seed and the number alone."""
    return int.from_bytes(hashlib.sha256(f"{project_seed}/{number}".encode()).digest()[:4], "big") >> 1


def _close_finished(store: Store, open_rounds: frozenset[int], fence: int) -> None:
    """Close every exported round without open questions, and remove its temporary objects."""
    for number in rounds.numbers(store):
        record, tag = rounds.read(store, number)
        if record.state == "exported" and number not in open_rounds:
            rounds.swap(store, record, tag, state="closed", fence=fence)
            rounds.forget_run(store, number)
