"""Watch a project for new drops and label batches, and start a run when there are some.

It only starts runs; ``ingest`` decides whether one becomes a round, and what this asks beforehand
(``planning.consider``, which writes nothing) only spares useless runs. All that it knows it can find again in the
project: after a restart it asks the project once, and continues. So nothing is lost when it dies, and an event is a
hint and no more.

Told to stop, it leaves a local run alone: that has a session of its own, commits by itself, and may take longer than
any grace period; the next trigger sees its lock and waits for it. Where the run dies too, as in a pod that ends, the
next trigger resumes the round.
"""

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from alfamix_core.errors import AlfamixError
from alfamix_core.project import lock, planning
from alfamix_core.project.inbox.listing import list_inbox
from alfamix_core.storage import Store, connection
from alfamix_core.telemetry.events import emit
from pipelines.engines.engine import Engine, Started
from pipelines.services.health import TriggerMetrics
from pipelines.services.s3_events import Messages, keys_of

_SLICE = 0.1  # seconds between two looks at whether to stop
_LONG_POLL = 5.0  # seconds; the longest that stopping can take
_MESSAGES_A_TURN = 100
LONGEST_TURN = 2 * connection.LONGEST_CALL + 180.0
"""Seconds that a turn may take before the process counts as hung: a listing and a question to a store that accepts and
never answers, each with all its attempts, and a queue or an API that does the same."""


@dataclass(frozen=True)
class Pace:
    """How often and how soon; all in seconds.

    Attributes:
        poll: between two listings of the project.
        quiet: without anything new, after which a run starts.
        max_wait: after the first new thing, when a run starts although more keeps coming.
        review: after which the project is asked although nothing came: queries expire, budgets of a day come back.
        retry: before the first attempt after an error, or at a round that failed; doubled each time.
        longest: of such waits.
    """

    poll: float = 60.0
    quiet: float = 30.0
    max_wait: float = 600.0
    review: float = 3600.0
    retry: float = 15.0
    longest: float = 1800.0


class Trigger:
    """One project's watch."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        pace: Pace,
        metrics: TriggerMetrics,
        messages: Messages | None = None,
        name: str = "",
    ) -> None:
        """Watch a project.

        Args:
            store: the project.
            engine: what starts runs.
            pace: how often, how soon.
            metrics: which it keeps.
            messages: a queue of S3 events; None for polling alone.
            name: of the project, for the log.
        """
        self._store, self._engine, self._pace = store, engine, pace
        self._metrics, self._messages = metrics, messages
        self._name = name
        self._known: set[tuple[str, str]] = set()
        self._hinted = False  # a message told of something that was not in the last listing
        self._first: float | None = None  # when the first new thing came that no run has been started for
        self._last = 0.0  # when the newest came
        self._followed = True  # whether the last run's end has been seen
        self._run: Started | None = None  # the last one
        self._started = 0  # the round of the last run
        self._attempts = 0  # at that round, one after the other
        self._not_before = 0.0  # of asking the project
        self._next_look = 0.0
        self._next_receive = 0.0
        self._next_review = 0.0
        self._failures = {"project": 0, "messages": 0}
        self._said = ""
        self._stopping = False

    def stop(self) -> None:
        """End the loop after this turn; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Go on until told to stop; deliberate errors are reported, counted and tried again."""
        self._say("watching", self._store.uri)
        while not self._stopping:
            self._metrics.turned = time.monotonic()
            self._turn()
        self._say("stopped", "a local run that is under way goes on" if self._busy_quietly() else "")

    def run_once(self) -> int:
        """Look once, start a run if one is due, and wait where it would die with this process.

        Returns:
            The run's exit status; 0 when nothing was due or another run holds the project.

        Raises:
            InputError: the project, a drop or a batch cannot be used.
            StorageError: store, queue or engine cannot be reached.
        """
        if self._messages is not None:
            while self._receive(self._messages, 0):
                pass
        self._look()
        if not self._known:
            self._say("idle", "the project has no drop and no labels")
            return 0
        self._ask(time.monotonic())
        return self._wait() if self._run is not None else 0

    def _wait(self) -> int:
        """Show the run that was started until it ends, where it would die with this process; return its status."""
        if self._run is None or self._engine.detached:
            return 0
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        ended = self._engine.follow(self._run, console)
        for stage, _, line in ended.failures[:1]:
            console.print(f"alfamix: {stage}: {line}")
        return ended.status

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            with self._surviving("project") as ok:
                self._look()
            self._next_look = time.monotonic() + (self._pace.poll if ok else self._backoff("project"))
        if now >= self._next_review and self._next_review:
            self._note(now)
        if self._is_due(now):
            with self._surviving("project") as ok:
                self._ask(now)
            if not ok:
                self._not_before = time.monotonic() + self._backoff("project")
        self._metrics.pending(self._first)
        wait = max(0.0, min(self._next_look, self._when_due()) - time.monotonic())
        if self._messages is not None and time.monotonic() >= self._next_receive:
            with self._surviving("messages") as ok:
                count = 0
                while not self._stopping and count < _MESSAGES_A_TURN and not self._is_due(time.monotonic()):
                    got = self._receive(self._messages, 0 if count else min(wait, _LONG_POLL))
                    if not got:
                        break
                    count += got
            if not ok:
                self._next_receive = time.monotonic() + self._backoff("messages")
            elif wait < 1:
                self._sleep(wait)
        else:
            self._sleep(min(wait, _LONG_POLL))

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    # what is new

    def _look(self) -> None:
        """List the inbox; what was not there before, or has changed, is new. The first time everything is."""
        found = {(file.key, file.tag) for file in list_inbox(self._store).files} - self._known
        if found:
            self._metrics.noticed("sqs" if self._hinted else "poll", len(found))
            self._known |= found
            self._note(time.monotonic())
        self._hinted = False
        self._metrics.looked()

    def _receive(self, messages: Messages, seconds: float) -> int:
        """Take in messages; return how many.

        One that tells of something new is a reason to list the project now; nothing else is taken from it, so it is
        deleted at once.
        """
        got = messages.receive(seconds)
        for body, _ in got:
            try:
                keys = keys_of(body, self._store.uri)
            except ValueError as error:
                self._metrics.message("malformed")
                self._say("malformed", f"a message is skipped: {' '.join(str(error).split())[:200]}")
                continue
            self._metrics.message("relevant" if keys else "elsewhere")
            if keys:
                self._hinted, self._next_look = True, 0.0
        if got:
            messages.delete([receipt for _, receipt in got])
        return len(got)

    def _note(self, now: float) -> None:
        self._first = now if self._first is None else self._first
        self._last = now
        self._next_review = now + self._pace.review

    # when to ask

    def _when_due(self) -> float:
        """The moment at which the project is asked next."""
        if self._first is not None:
            due = min(self._last + self._pace.quiet, self._first + self._pace.max_wait)
            return max(due, self._not_before)
        return self._next_review or float("inf") if self._followed else self._not_before

    def _is_due(self, now: float) -> bool:
        return (self._first is not None or not self._followed) and now >= self._when_due()

    def _ask(self, now: float) -> None:
        """Ask the project whether a round is due, and start a run for it."""
        moment = datetime.now(UTC)
        found = lock.read(self._store)
        reason = lock.blocked_by(found[0] if found else None, "", moment)
        if reason and (dead := self._engine.free_lock()):
            self._say("unlocked", f"run {dead} has ended and held the project's lock")
            reason = ""
        if not reason:
            if self._engine.busy():
                reason = f"the run for round {self._started} has not ended" if self._started else "a run is under way"
            self._metrics.stale(self._engine.stale())
        if reason:
            self._metrics.considered("busy")
            self._say("waiting", reason, once=True)
            self._not_before = now + self._pace.poll
            return
        plan = planning.consider(self._store, moment)
        following, self._followed = not self._followed, True
        if plan.decision == "plan" and following and self._first is None:
            return  # nothing came since the last run was started, and that is over
        self._metrics.considered(plan.decision)
        if plan.decision == "idle":
            planning.finish_killed(self._store, plan.last, moment)
            self._first, self._attempts = None, 0
            if not following:
                self._say("idle", plan.text)
            return
        again = plan.decision == "resume" and plan.number == self._started
        if again and following:
            delay = self._delay(self._attempts)
            self._attempts += 1
            self._say("failed", f"round {plan.number} did not end well; it is resumed in {delay:.0f} s", plan.number)
            self._first = self._last = now
            self._not_before = now + delay
            return
        if not again:
            self._attempts = 0
        self._run = self._engine.start(plan)
        self._first, self._followed, self._started = None, False, plan.number
        self._not_before = now + min(self._pace.poll, self._pace.retry)
        self._metrics.started(plan.number)
        self._said = ""
        self._say("started", f"{plan.text}; {self._run.text}", plan.number)

    # errors

    @contextlib.contextmanager
    def _surviving(self, source: str) -> "Iterator[_Outcome]":
        outcome = _Outcome()
        try:
            yield outcome
            self._failures[source] = 0
        except AlfamixError as error:
            outcome.good = False
            self._failures[source] += 1
            self._metrics.error(source)
            self._say("error", " ".join(str(error).split()), once=True)

    def _backoff(self, source: str) -> float:
        return self._delay(self._failures[source] - 1)

    def _delay(self, attempt: int) -> float:
        """Seconds before another attempt: doubled each time, with jitter so that many do not come at once."""
        return min(self._pace.longest, self._pace.retry * 2.0 ** min(attempt, 20)) * random.uniform(0.5, 1.0)

    def _busy_quietly(self) -> bool:
        try:
            return self._engine.busy()
        except AlfamixError:
            return False

    def _say(self, state: str, text: str, number: int = 0, once: bool = False) -> None:
        """Print one event; with ``once`` not again while nothing else is said."""
        if once and self._said == state + text:
            return
        self._said = state + text
        emit("trigger", project=self._name, round=number, state=state, text=text)


class _Outcome:
    """Whether a step succeeded."""

    good = True

    def __bool__(self) -> bool:
        return self.good
