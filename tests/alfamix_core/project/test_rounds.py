"""How a round's record moves from state to state, and who may move it."""

from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.errors import InputError, LockedError, ObjectChangedError
from alfamix_core.project import doctor, layout, lock, planning, rounds
from alfamix_core.records.round import Outcome
from alfamix_core.storage import path_of

HOUR = timedelta(hours=1)


def outcome(**fields):
    return Outcome(
        **{"queries": 2, "strategy": "random", "exported_at": datetime(2026, 3, 1, 13, tzinfo=UTC), **fields}
    )


def test_a_failed_round_says_why_and_is_planned_again_when_resumed(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    failed = rounds.mark_failed(made.store, 1, "run-1", "train: out of luck")
    assert (failed.state, failed.reason) == ("failed", "train: out of luck")
    lock.release(made.store, "run-1")
    resumed, _ = planning.begin(made.store, holder("run-2"), noon)
    assert (resumed.state, resumed.reason) == ("planned", "")


def test_only_the_run_that_has_the_round_may_call_it_failed(made, holder, noon):
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    assert rounds.mark_failed(made.store, 1, "run-0", "late news") == planned
    assert rounds.read(made.store, 1)[0] == planned


def test_exporting_twice_is_exporting_once(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    first = rounds.mark_exported(made.store, 1, "run-1", outcome(), noon)
    again = rounds.mark_exported(made.store, 1, "run-1", outcome(queries=1), noon + HOUR)
    assert first == again == rounds.read(made.store, 1)[0]
    assert (first.state, first.outcome.queries, first.revision) == ("exported", 2, 2)


def test_a_late_writer_can_no_longer_export(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    planning.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    before = made.files()
    with pytest.raises(LockedError, match="run run-1 no longer holds the project: run run-2 took it over"):
        rounds.mark_exported(made.store, 1, "run-1", outcome(), noon + 12 * HOUR)
    assert made.files() == before


def test_a_writer_that_read_before_the_take_over_cannot_swap_after_it(made_anywhere, holder, noon):
    """The fence and the revision of the resumed round make its bytes others, so the old tag no longer fits."""
    made = made_anywhere
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    _, tag = rounds.read(made.store, 1)
    planning.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    with pytest.raises(ObjectChangedError):
        made.store.swap(layout.round_file(1), planned.document(), tag)


def test_whatever_takes_the_lock_over_signs_the_unfinished_round_so_that_a_late_swap_fails(made_anywhere, holder, noon):
    """The late run was stopped between its look at the lock and its swap; who came was no run, and has gone again."""
    made = made_anywhere
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    _, tag = rounds.read(made.store, 1)
    with rounds.holding(made.store, "clean", noon + 12 * HOUR) as held:
        signed, _ = rounds.read(made.store, 1)
    assert signed == planned.model_copy(update={"fence": held.fence, "revision": 2})
    exported = planned.model_copy(update={"state": "exported", "outcome": outcome()})
    with pytest.raises(ObjectChangedError):
        made.store.swap(layout.round_file(1), exported.document(), tag)
    assert lock.read(made.store)[0].holder is None
    resumed, _ = planning.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    assert resumed.key == planned.key


def test_unlocking_signs_the_unfinished_round_too(made, holder, noon):
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    assert rounds.unlock(made.store, noon).holder.run_id == "run-1"
    assert rounds.read(made.store, 1)[0] == planned.model_copy(update={"fence": 2, "revision": 2})
    assert rounds.unlock(made.store, noon) is None


def test_short_work_is_refused_while_a_run_lives_and_lets_go_even_if_it_fails(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    before = made.files()
    with (
        pytest.raises(LockedError, match=r"^the project is locked by run run-1 until"),
        rounds.holding(made.store, "promote", noon),
    ):
        raise AssertionError("not reached")
    assert made.files() == before
    lock.release(made.store, "run-1")
    with pytest.raises(ZeroDivisionError), rounds.holding(made.store, "promote", noon):
        raise ZeroDivisionError
    assert lock.read(made.store)[0].holder is None


def test_an_abandoned_round_asked_nothing_and_is_no_point_of_comparison(made_anywhere, holder, noon, export):
    made = made_anywhere
    made.drop("a", "b", "c", "d")
    export(made, "run-1", holder, "b")
    made.drop("more", "e", "f")
    given_up, _ = planning.begin(made.store, holder("run-2"), noon + HOUR)
    with pytest.raises(LockedError, match="locked by run run-2"):
        rounds.abandon(made.store, "a run works on it", noon + HOUR)
    made.store.create(layout.run(2) + "train/checkpoint.json", b"half a model")
    rounds.mark_failed(made.store, 2, "run-2", "train: out of luck")
    lock.release(made.store, "run-2")
    abandoned = rounds.abandon(made.store, "the drop was of the wrong camera", noon + HOUR)
    assert (abandoned.state, abandoned.reason) == ("abandoned", "the drop was of the wrong camera")
    assert rounds.read(made.store, 2)[0] == abandoned
    assert abandoned.fence > given_up.fence
    assert list(made.store.list(layout.run(2))) == []
    plan = planning.consider(made.store, noon + HOUR)
    assert (plan.decision, plan.number, plan.text) == ("plan", 3, "2 new samples since round 1")
    third, _ = planning.begin(made.store, holder("run-3"), noon + HOUR)
    assert third.counts.queried == 1
    assert doctor.examine(made.store, noon + HOUR) == []


def test_a_late_run_cannot_export_a_round_that_was_abandoned(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    lock.unlock(made.store)
    rounds.abandon(made.store, "it hangs", noon)
    with pytest.raises(LockedError, match="run run-1 no longer holds the project: unlocked"):
        rounds.mark_exported(made.store, 1, "run-1", outcome(), noon)
    assert rounds.mark_failed(made.store, 1, "run-1", "too late").state == "abandoned"


def test_only_an_unfinished_round_can_be_abandoned(made, holder, noon, export):
    made.drop("a", "b", "c")
    with pytest.raises(InputError, match="there is no round to abandon"):
        rounds.abandon(made.store, "?", noon)
    export(made, "run-1", holder, "b")
    with pytest.raises(InputError, match="round 1 is exported; only an unfinished round can be abandoned"):
        rounds.abandon(made.store, "?", noon)


def test_what_a_person_put_beside_the_rounds_is_no_round(made, holder, noon):
    made.drop("a", "b")
    made.store.create("rounds/my notes/todo.txt", b"")
    planning.begin(made.store, holder("run"), noon)
    assert rounds.numbers(made.store) == [1]


def test_a_round_that_does_not_exist_is_named(made):
    with pytest.raises(InputError, match="has no round 7"):
        rounds.read(made.store, 7)
    assert rounds.numbers(made.store) == []


def test_an_empty_folder_of_a_round_that_was_never_planned_does_not_count(made, noon):
    made.drop("d", "a", "b")
    path_of(made.store.uri_of("rounds/000001/round.json")).parent.mkdir(parents=True)
    assert rounds.numbers(made.store) == []
    assert planning.consider(made.store, noon).number == 1
