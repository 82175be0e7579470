"""When the trigger looks, asks and waits: by hand, and against a twin that keeps the whole history and ticks."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.services.next_step import (
    Ask,
    Facts,
    Look,
    News,
    Pace,
    Retry,
    State,
    Wait,
    answered,
    ask_failed,
    backoff,
    blocked,
    listen_failed,
    listened,
    look_failed,
    looked,
    next_step,
    outcome,
)

PACE = Pace(poll=60, quiet=30, max_wait=600, review=3600, retry=15, longest=1800)
SEEN = State(listed=100)


def step(state, now, hinted=False):
    return next_step(state, Facts(hinted), PACE, now)


def test_the_first_step_is_a_look_and_the_next_comes_a_poll_later():
    assert step(State(), 5) == Look()
    assert step(SEEN, 100) == Wait(60, listen=True)
    assert step(SEEN, 159) == Wait(1, listen=True)
    assert step(SEEN, 160) == Look()


def test_a_hint_calls_for_a_look_now_but_not_while_the_project_cannot_be_listed():
    assert step(SEEN, 101, hinted=True) == Look()
    down = look_failed(SEEN, PACE, 101, 1.0)
    assert step(down, 102, hinted=True) == Wait(14, listen=True)
    assert step(down, 116) == Look()


def test_a_project_without_anything_is_never_asked():
    state = State()
    for now in range(0, 100_000, 60):
        assert step(state, now) == Look()
        state = looked(state, 0, now)
        assert isinstance(step(state, now), Wait)


def test_news_is_asked_about_after_a_quiet_time_and_at_the_latest_after_the_longest_wait():
    assert step(replace(SEEN, news=News(100, 100)), 129) == Wait(1, listen=True)
    assert step(replace(SEEN, news=News(100, 100)), 130) == Ask()
    assert step(State(listed=690, news=News(100, 690)), 699) == Wait(1, listen=True)
    assert step(State(listed=690, news=News(100, 690)), 700) == Ask()


def test_more_news_moves_the_quiet_time_and_leaves_the_longest_wait():
    assert looked(looked(State(), 1, 7), 2, 9).news == News(7, 9)
    assert looked(looked(State(), 1, 7), 0, 9).news == News(7, 7)


def test_a_project_that_another_run_holds_is_asked_a_poll_later():
    held = blocked(replace(SEEN, news=News(100, 100)), PACE, 130)
    assert step(replace(held, listed=180), 189) == Wait(1, listen=True)
    assert step(replace(held, listed=180), 190) == Ask()


def test_after_a_start_the_end_of_the_run_is_asked_for_without_news():
    started = answered(replace(SEEN, news=News(90, 90)), "plan", 4, PACE, 120, 1.0)
    assert (started.started, started.following, started.news) == (4, True, None)
    assert step(started, 134) == Wait(1, listen=True)
    assert step(started, 135) == Ask()


def test_without_news_the_project_is_asked_again_after_the_time_of_review():
    idle = answered(SEEN, "idle", 4, PACE, 120, 1.0)
    assert step(replace(idle, listed=3700), 3719) == Wait(1, listen=True)
    assert step(replace(idle, listed=3700), 3720) == Ask()


@pytest.mark.parametrize(
    ("state", "decision", "number", "meaning"),
    [
        (State(), "plan", 1, "start"),
        (State(), "resume", 1, "start"),
        (State(), "idle", 1, "idle"),
        (State(following=True, started=3), "idle", 4, "idle"),
        (State(following=True, started=3), "plan", 4, "over"),
        (State(following=True, started=3, news=News(1, 1)), "plan", 4, "start"),
        (State(following=True, started=3), "resume", 3, "failed"),
        (State(following=True, started=3), "resume", 4, "start"),
        (State(following=False, started=3), "resume", 3, "start"),
    ],
)
def test_what_an_answer_means(state, decision, number, meaning):
    assert outcome(state, decision, number) == meaning


def test_a_round_that_fails_again_and_again_waits_twice_as_long_each_time_up_to_the_limit():
    state, waits = answered(SEEN, "plan", 1, PACE, 0, 1.0), []
    for _ in range(10):
        state = answered(state, "resume", 1, PACE, 0, 1.0)
        waits.append(state.postponed)
        state = answered(state, "resume", 1, PACE, 0, 1.0)
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    assert answered(state, "idle", 2, PACE, 0, 1.0).failed_runs == 0


def test_errors_of_one_kind_do_not_delay_another_and_a_success_forgets_them():
    state = ask_failed(ask_failed(replace(SEEN, news=News(0, 0)), PACE, 100, 1.0), PACE, 115, 1.0)
    assert state.asking == Retry(2, 145)
    assert step(state, 116) == Wait(29, listen=True)
    state = listen_failed(state, PACE, 116, 0.5)
    assert step(state, 116) == Wait(29, listen=False)
    assert step(listened(state), 116) == Wait(29, listen=True)
    assert step(state, 145) == Ask()
    assert answered(state, "idle", 1, PACE, 145, 1.0).asking == Retry()
    assert looked(look_failed(state, PACE, 145, 1.0), 0, 150).looking == Retry()


def test_a_wait_is_finite_however_many_attempts_failed():
    assert backoff(PACE, 10_000, 1.0) == 1800


# the twin


@dataclass
class World:
    """What happens: files, the ends of runs, and what breaks; drawn beforehand, by the second."""

    files: list[int]
    hints: set[int]
    lengths: list[int]
    failing_runs: int
    held: set[int]
    broken_looks: set[int]
    broken_asks: set[int]

    def __post_init__(self):
        self.seen = 0
        self.number, self.inside = 0, 0  # the newest round and the files in it
        self.unfinished = False
        self.busy_until = 0

    def look(self, now):
        """Return how many files are new; None if the store is down."""
        if now in self.broken_looks:
            return None
        new = sum(at <= now for at in self.files) - self.seen
        self.seen += new
        return new

    def ask(self, now):
        """Return what the project answers, and start a run where one is due; None if it is down."""
        if now in self.broken_asks:
            return None
        if now in self.held or now < self.busy_until:
            return "busy", 0
        if self.unfinished:
            return "resume", self.number
        if sum(at <= now for at in self.files) > self.inside:
            return "plan", self.number + 1
        return "idle", self.number + 1

    def start(self, now, decision, number):
        if decision == "plan":
            self.inside = sum(at <= now for at in self.files)
        self.number = number
        self.busy_until = now + self.lengths[number % len(self.lengths)]
        self.unfinished = self.failing_runs > 0
        self.failing_runs -= self.unfinished


def by_state(world, pace, end):
    """What the trigger does: jump from step to step."""
    state, now, done = State(), 0, []
    hints = set(world.hints)
    while now < end:
        facts = Facts(any(at <= now for at in hints))
        decided = next_step(state, facts, pace, now)
        if isinstance(decided, Wait):
            assert decided.seconds > 0
            arriving = [at for at in hints if at > now]  # a message ends a wait
            now = min([now + decided.seconds, *arriving])
            continue
        done.append((now, type(decided).__name__))
        assert len(done) < 5 * end, "the trigger does not rest"
        if isinstance(decided, Look):
            new = world.look(now)
            if new is None:
                state = look_failed(state, pace, now, 1.0)
            else:
                state = looked(state, new, now)
                hints = {at for at in hints if at > now}
            continue
        answer = world.ask(now)
        if answer is None:
            state = ask_failed(state, pace, now, 1.0)
        elif answer[0] == "busy":
            state = blocked(state, pace, now)
        else:
            meaning = outcome(state, *answer)
            done[-1] = (now, meaning)
            if meaning == "start":
                world.start(now, *answer)
            state = answered(state, *answer, pace, now, 1.0)
    return done


def by_history(world, pace, end):
    """The twin: every second, and every decision from the whole log of what happened."""
    log = []  # (second, what, value)

    def since(*kinds):
        """Return the log behind the last entry of these kinds."""
        places = [place for place, (_, what, _) in enumerate(log) if what in kinds]
        return log[places[-1] + 1 :] if places else log

    def last(*kinds):
        return next(((at, what, value) for at, what, value in reversed(log) if what in kinds), None)

    def failures(kind, ends):
        """Return how many attempts failed, one after the other, and when they may be tried again."""
        broken = [at for at, what, _ in since(*ends) if what == kind]
        return broken[-1] + min(pace.longest, pace.retry * 2 ** (len(broken) - 1)) if broken else None

    def look_is_due(now):
        again = failures("look broke", ("looked",))
        if again is not None:
            return now >= again
        listed = last("looked")
        return listed is None or now >= listed[0] + pace.poll or any(listed[0] < at <= now for at in world.hints)

    def ask_is_due(now):
        again = failures("ask broke", ("busy", "start", "failed", "idle", "over"))
        if again is not None and now < again:
            return False
        settled = last("busy", "start", "failed", "idle", "over")
        if settled is not None and settled[1] == "busy" and now < settled[0] + pace.poll:
            return False
        if settled is not None and settled[1] == "start" and now < settled[0] + min(pace.poll, pace.retry):
            return False
        if settled is not None and settled[1] == "failed" and now < settled[2]:
            return False
        news = [at for at, what, value in since("start", "idle") if (what == "looked" and value) or what == "failed"]
        if news:
            fresh = [at for at, what, value in since("start", "idle") if what == "looked" and value]
            newest = max([*fresh, news[0]])
            if now >= min(newest + pace.quiet, news[0] + pace.max_wait):
                return True
        if (
            last("start", "failed", "idle", "over") is not None
            and last("start", "failed", "idle", "over")[1] == "start"
        ):
            return True
        reviewed = last("start", "failed", "idle")
        return reviewed is not None and now >= reviewed[0] + pace.review

    done = []
    for now in range(end):
        while True:
            if look_is_due(now):
                new = world.look(now)
                done.append((now, "Look"))
                log.append((now, "look broke", 0) if new is None else (now, "looked", new))
            elif ask_is_due(now):
                answer = world.ask(now)
                done.append((now, "Ask"))
                if answer is None or answer[0] == "busy":
                    log.append((now, "busy" if answer else "ask broke", 0))
                    continue
                runs = last("start", "failed", "idle", "over")
                follows = runs is not None and runs[1] == "start"
                mine = follows and answer == ("resume", runs[2])
                news = [
                    1 for _, what, value in since("start", "idle") if (what == "looked" and value) or what == "failed"
                ]
                if answer[0] == "idle":
                    log.append((now, "idle", 0))
                elif mine:
                    number = answer[1]
                    again = [what for _, what, value in log if what == "failed round" and value == number]
                    log.append((now, "failed round", number))
                    log.append((now, "failed", now + min(pace.longest, pace.retry * 2 ** len(again))))
                elif follows and answer[0] == "plan" and not news:
                    log.append((now, "over", 0))
                else:
                    world.start(now, *answer)
                    log.append((now, "start", answer[1]))
                done[-1] = (now, log[-1][1])
            else:
                break
    return done


END = 150
SECONDS = st.integers(0, END)
PACES = st.builds(
    Pace,
    poll=st.integers(1, 40),
    quiet=st.integers(0, 20),
    max_wait=st.integers(0, 60),
    review=st.integers(5, 100),
    retry=st.integers(1, 10),
    longest=st.integers(10, 40),
)
WORLDS = st.fixed_dictionaries(
    {
        "files": st.lists(SECONDS, max_size=8),
        "hints": st.sets(SECONDS, max_size=5),
        "lengths": st.lists(st.integers(0, 30), min_size=1, max_size=4),
        "failing_runs": st.integers(0, 4),
        "held": st.sets(SECONDS, max_size=30),
        "broken_looks": st.sets(SECONDS, max_size=20),
        "broken_asks": st.sets(SECONDS, max_size=20),
    }
)


@settings(deadline=None, max_examples=200)
@given(PACES, WORLDS)
def test_the_rules_do_what_a_twin_does_that_ticks_and_keeps_the_whole_history(pace, world):
    assert by_state(World(**world), pace, END) == by_history(World(**world), pace, END)


@settings(deadline=None, max_examples=100)
@given(PACES, WORLDS)
def test_once_everything_works_every_file_is_in_a_round(pace, world):
    world = World(**world)
    by_state(world, pace, END + 1000)
    assert (world.inside, world.unfinished) == (len(world.files), False)
