"""Watch a project for new drops and label batches, and start a run when there are some.

The trigger only starts runs; ``ingest`` decides whether one becomes a round, and what the trigger asks beforehand
(``planning.consider``, which writes nothing) only spares useless runs. It writes nothing in the project except
lock.json, when it frees the lock of a dead run; the next run applies the promotion of such a run. Everything that it
knows it can find again in the project: after a restart it asks the project once and continues. So nothing is lost when
it dies, and an event is no more than a hint.

Stopping it leaves a local run alone: the run has a session of its own, commits by itself, and may take longer than any
grace period; the next trigger sees its lock and waits for it. Where the run dies too, as in a pod that ends, the next
trigger resumes the round.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from rich.console import Console

from alfamix_core.errors import AlfamixError, one_line
from alfamix_core.project import lock, planning
from alfamix_core.project.inbox.listing import list_inbox
from alfamix_core.storage import Store, connection
from alfamix_core.telemetry.events import emit
from pipelines.engines.engine import Engine, Started
from pipelines.services import next_step as rules
from pipelines.services.next_step import Ask, Facts, Look, Pace, State, Wait, next_step
from pipelines.services.s3_events import Messages, keys_of
from pipelines.services.trigger_metrics import TriggerMetrics

_SLICE = 0.1  # seconds between two looks at whether to stop
_LONG_POLL = 5.0  # seconds; longest delay of a stop
_MESSAGES_PER_TURN = 100
LONGEST_TURN = 2 * connection.LONGEST_CALL + 180.0
"""Seconds that a turn may take before the process counts as hung: a listing and a question to a store that accepts and
never answers, each with all its attempts, and a queue or an API that does the same."""


class Trigger:
    """The watch over one project: carries out what ``next_step`` decides, and reports what came of it."""

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
            store: The project.
            engine: Engine that starts runs.
            pace: How often and how soon.
            metrics: Metrics that it keeps.
            messages: Queue of S3 events; None for polling alone.
            name: Name of the project, for the log.
        """
        self._store, self._engine, self._pace = store, engine, pace
        self._metrics, self._messages = metrics, messages
        self._name = name
        self._state, self._facts = State(), Facts()
        self._known: set[tuple[str, str]] = set()
        self._run: Started | None = None
        self._last_event = ""
        self._stopping = False

    def stop(self) -> None:
        """End the loop after this turn; may be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Watch until ``stop``; deliberate errors are reported, counted and tried again."""
        self._report("watching", self._store.uri)
        while not self._stopping:
            self._metrics.turned = time.monotonic()
            match next_step(self._state, self._facts, self._pace, time.monotonic()):
                case Look():
                    self._try("project", self._look, rules.look_failed)
                case Ask():
                    self._try("project", self._ask, rules.ask_failed)
                case Wait(seconds, listen):
                    self._wait(min(seconds, _LONG_POLL), listen)
            self._metrics.pending(self._state.news.first if self._state.news else None)
        self._report("stopped", "a local run that is under way continues" if self._leaves_a_run() else "")

    def run_once(self) -> int:
        """Look once, start a run if one is due, and wait where it would die with this process.

        Returns:
            The run's exit status; 0 if nothing was due or another run holds the project.

        Raises:
            InputError: The project, a drop or a batch cannot be used.
            StorageError: Store, queue or engine cannot be reached.
        """
        if self._messages is not None:
            while self._receive(self._messages, 0):
                pass
        self._look()
        if not self._known:
            self._report("idle", "the project has no drop and no labels")
            return 0
        self._ask()
        return self._follow()

    def _follow(self) -> int:
        """Show the run that was started until it ends, where it would die with this process; return its status."""
        if self._run is None or self._engine.detached:
            return 0
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        ended = self._engine.follow(self._run, console)
        for failure in ended.failures[:1]:
            console.print(f"alfamix: {failure.stage}: {failure.line}")
        return ended.status

    # the three steps

    def _look(self) -> None:
        """List the inbox; a file that was not there before, or has changed, is new. The first time every file is."""
        new = {(file.key, file.tag) for file in list_inbox(self._store).files} - self._known
        if new:
            self._metrics.noticed("sqs" if self._facts.hinted else "poll", len(new))
            self._known |= new
        self._state, self._facts = rules.looked(self._state, len(new), time.monotonic()), Facts()
        self._metrics.looked()

    def _ask(self) -> None:
        """Ask the project whether a round is due, and start a run for it."""
        moment = datetime.now(UTC)
        if reason := self._blocked(moment):
            self._metrics.considered("busy")
            self._report("waiting", reason, once=True)
            self._state = rules.blocked(self._state, self._pace, time.monotonic())
            return
        plan = planning.consider(self._store, moment)
        before, meaning = self._state, rules.outcome(self._state, plan.decision, plan.number)
        if meaning == "idle":
            lock.free_dead(self._store, moment)
        if meaning == "start":
            self._run = self._engine.start(plan)
            self._metrics.started(plan.number)
            self._report("started", f"{plan.text}; {self._run.text}", plan.number)
        now = time.monotonic()
        self._state = rules.answered(before, plan.decision, plan.number, self._pace, now, _jitter())
        if meaning != "over":
            self._metrics.considered(plan.decision)
        if meaning == "idle" and not before.following:
            self._report("idle", plan.text)
        if meaning == "failed" and self._state.postponed is not None:
            wait = self._state.postponed - now
            self._report("failed", f"round {plan.number} did not end well; it is resumed in {wait:.0f} s", plan.number)

    def _blocked(self, moment: datetime) -> str:
        """Return why no run may start now, '' if one may."""
        reason = lock.blocked_by(lock.read(self._store).value, "", moment)
        if reason and (dead := self._engine.free_lock()):
            self._report("unlocked", f"run {dead} has ended and held the project's lock")
            reason = ""
        if reason:
            return reason
        busy = self._engine.busy()
        self._metrics.stale(self._engine.stale())
        number = self._state.started
        return (f"the run for round {number} has not ended" if number else "a run is under way") if busy else ""

    def _wait(self, seconds: float, listen: bool) -> None:
        if self._messages is None or not listen:
            self._sleep(seconds)
        else:
            self._try("messages", partial(self._listen, self._messages, seconds), rules.listen_failed)

    def _listen(self, messages: Messages, seconds: float) -> None:
        """Wait for messages, and take in those that are there."""
        count = batch = self._receive(messages, seconds)
        while batch and count < _MESSAGES_PER_TURN and not self._stopping:
            batch = self._receive(messages, 0)
            count += batch
        self._state = rules.listened(self._state)
        if not count and seconds < 1:  # the queue waits for whole seconds alone
            self._sleep(seconds)

    def _receive(self, messages: Messages, seconds: float) -> int:
        """Take in messages; return their number.

        A message that names something new is a reason to list the project now; nothing else is taken from it, so it is
        deleted immediately.
        """
        received = messages.receive(seconds)
        for body, _ in received:
            try:
                keys = keys_of(body, self._store.uri)
            except ValueError as error:
                self._metrics.message("malformed")
                self._report("malformed", f"a message is skipped: {' '.join(str(error).split())[:200]}")
                continue
            self._metrics.message("relevant" if keys else "elsewhere")
            if keys:
                self._facts = Facts(hinted=True)
        if received:
            messages.delete([receipt for _, receipt in received])
        return len(received)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    # errors and reports

    def _try(self, source: str, step: Callable[[], None], failed: Callable[[State, Pace, float, float], State]) -> None:
        try:
            step()
        except AlfamixError as error:
            self._metrics.error(source)
            self._report("error", one_line(error), once=True)
            self._state = failed(self._state, self._pace, time.monotonic(), _jitter())

    def _leaves_a_run(self) -> bool:
        try:
            return self._engine.busy()
        except AlfamixError:
            return False

    def _report(self, state: str, text: str, number: int = 0, once: bool = False) -> None:
        """Print one event; with ``once``, only if the last event was another."""
        if once and self._last_event == state + text:
            return
        self._last_event = state + text
        emit("trigger", project=self._name, round=number, state=state, text=text)


def _jitter() -> float:
    return random.uniform(0.5, 1.0)
