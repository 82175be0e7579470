"""How a round's record moves from state to state, and who may move it."""

from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.errors import InputError, LockedError, ObjectChangedError
from alfamix_core.project import layout, lock, planning, rounds
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
