"""When the trigger lists the project, when it asks for a round, and how long it waits: values in, a decision out.

Nothing here reads a clock, a store or a random number, so that every rule can be tested by hand.
"""

from dataclasses import dataclass, replace
from typing import Literal

Decision = Literal["plan", "resume", "idle"]
"""What ``planning.consider`` decides."""
Outcome = Literal["start", "failed", "idle", "over"]


@dataclass(frozen=True)
class Pace:
    """How often the trigger looks and how soon it acts; all in seconds.

    Attributes:
        poll: Time between two listings of the project.
        quiet: Time without anything new after which a run starts.
        max_wait: Time after the first new file when a run starts although more arrive.
        review: Time after an answer when the project is asked although nothing is new: queries expire, and budgets of
            a day come back.
        retry: Wait before the first attempt after an error, or at a round that failed; doubled each time.
        longest: Limit of such waits.
    """

    poll: float = 60.0
    quiet: float = 30.0
    max_wait: float = 600.0
    review: float = 3600.0
    retry: float = 15.0
    longest: float = 1800.0


@dataclass(frozen=True)
class News:
    """What is new and not yet part of a run.

    Attributes:
        first: Moment at which the first of it was seen.
        last: Moment at which the newest of it was seen.
    """

    first: float
    last: float


@dataclass(frozen=True)
class Retry:
    """Consecutive failures and the wait after them.

    Attributes:
        failures: Number of consecutive failures.
        until: Moment of the next attempt; None if it may be made now.
    """

    failures: int = 0
    until: float | None = None

    def allows(self, now: float) -> bool:
        """Return whether the next attempt may be made."""
        return self.until is None or now >= self.until


@dataclass(frozen=True)
class State:
    """What the trigger remembers; moments are seconds of one monotonic clock, None: it has not happened.

    Attributes:
        listed: Moment of the last attempt to list the project.
        news: What is new and not yet part of a run.
        answered: Moment at which the project last answered whether a round is due.
        postponed: Moment before which the project is not asked, because a run is under way or begins.
        started: Round of the last run that was started, 0 before the first.
        following: Whether the end of that run has not been seen.
        failed_runs: Number of consecutive runs of that round that ended badly.
        looking: Failures of listing the project.
        asking: Failures of asking, or of starting a run.
        listening: Failures of the message queue.
    """

    listed: float | None = None
    news: News | None = None
    answered: float | None = None
    postponed: float | None = None
    started: int = 0
    following: bool = False
    failed_runs: int = 0
    looking: Retry = Retry()
    asking: Retry = Retry()
    listening: Retry = Retry()


@dataclass(frozen=True)
class Facts:
    """What came from outside since the last step.

    Attributes:
        hinted: Whether a message named something that may not be in the last listing.
    """

    hinted: bool = False


@dataclass(frozen=True)
class Look:
    """List the project."""


@dataclass(frozen=True)
class Ask:
    """Ask the project whether a round is due, and start a run if one is."""


@dataclass(frozen=True)
class Wait:
    """Wait, and listen to the message queue meanwhile.

    Attributes:
        seconds: Longest wait, more than 0.
        listen: Whether the queue may be read.
    """

    seconds: float
    listen: bool


def next_step(state: State, facts: Facts, pace: Pace, now: float) -> Look | Ask | Wait:
    """Decide what to do now.

    Args:
        state: What the trigger remembers.
        facts: What came since the last step.
        pace: How often and how soon.
        now: This moment.
    """
    look, ask = _next_look(state, facts, pace, now), _next_ask(state, pace)
    if now >= look:
        return Look()
    if ask is None:
        return Wait(look - now, state.listening.allows(now))
    return Ask() if now >= ask else Wait(min(look, ask) - now, state.listening.allows(now))


def _next_look(state: State, facts: Facts, pace: Pace, now: float) -> float:
    """Return the moment of the next listing."""
    if state.looking.until is not None:
        return state.looking.until
    return now if facts.hinted or state.listed is None else state.listed + pace.poll


def _next_ask(state: State, pace: Pace) -> float | None:
    """Return the moment at which the project is asked, None if nothing calls for it."""
    reasons = []
    if state.news is not None:
        reasons.append(min(state.news.last + pace.quiet, state.news.first + pace.max_wait))
    if state.answered is not None:
        reasons.append(state.answered if state.following else state.answered + pace.review)
    if not reasons:
        return None
    return max([min(reasons), *(moment for moment in (state.postponed, state.asking.until) if moment is not None)])


def looked(state: State, new: int, now: float) -> State:
    """Record a listing with a number of new files."""
    news = state.news
    if new:
        news = News(now, now) if news is None else replace(news, last=now)
    return replace(state, listed=now, news=news, looking=Retry())


def blocked(state: State, pace: Pace, now: float) -> State:
    """Record that another run holds the project."""
    return replace(state, postponed=now + pace.poll, asking=Retry())


def outcome(state: State, decision: Decision, number: int) -> Outcome:
    """Return what the project's answer means, if no run holds the project.

    Args:
        state: What the trigger remembers.
        decision: Answer of the project.
        number: Round that would run.

    Returns:
        ``start``: a run starts. ``failed``: the round that was started last did not end well; its next run waits.
        ``idle``: no round is due. ``over``: the run that was started last has ended, and nothing is new since.
    """
    if decision == "idle":
        return "idle"
    if state.following and decision == "resume" and number == state.started:
        return "failed"
    return "over" if state.following and decision == "plan" and state.news is None else "start"


def answered(state: State, decision: Decision, number: int, pace: Pace, now: float, jitter: float) -> State:
    """Record the project's answer; where its outcome is ``start``, a run has been started.

    Args:
        state: What the trigger remembers.
        decision: Answer of the project.
        number: Round that would run.
        pace: How often and how soon.
        now: This moment.
        jitter: Factor of the wait before a round is resumed, 0.5 to 1.
    """
    meaning = outcome(state, decision, number)
    state = replace(state, following=meaning == "start", postponed=None, asking=Retry())
    if meaning == "over":
        return state  # a review that is due meanwhile still comes
    state = replace(state, answered=now)
    if meaning == "idle":
        return replace(state, news=None, failed_runs=0)
    if meaning == "failed":
        resumed = now + backoff(pace, state.failed_runs, jitter)
        return replace(state, news=state.news or News(now, now), postponed=resumed, failed_runs=state.failed_runs + 1)
    again = decision == "resume" and number == state.started
    return replace(
        state,
        news=None,
        postponed=now + min(pace.poll, pace.retry),
        started=number,
        failed_runs=state.failed_runs if again else 0,
    )


def look_failed(state: State, pace: Pace, now: float, jitter: float) -> State:
    """Record that the project could not be listed."""
    return replace(state, listed=now, looking=_after(state.looking, pace, now, jitter))


def ask_failed(state: State, pace: Pace, now: float, jitter: float) -> State:
    """Record that the project did not answer, or that no run could be started."""
    return replace(state, asking=_after(state.asking, pace, now, jitter))


def listen_failed(state: State, pace: Pace, now: float, jitter: float) -> State:
    """Record that the message queue could not be read."""
    return replace(state, listening=_after(state.listening, pace, now, jitter))


def listened(state: State) -> State:
    """Record that the message queue was read."""
    return replace(state, listening=Retry())


def backoff(pace: Pace, failures: int, jitter: float) -> float:
    """Return the seconds before another attempt: doubled each time, with jitter so that many do not come together.

    Args:
        pace: How soon.
        failures: Number of attempts that failed before this one.
        jitter: Factor, 0.5 to 1.
    """
    return min(pace.longest, pace.retry * 2.0 ** min(failures, 20)) * jitter


def _after(retry: Retry, pace: Pace, now: float, jitter: float) -> Retry:
    return Retry(retry.failures + 1, now + backoff(pace, retry.failures, jitter))
