"""What came since the round before, whatever became of the segments meanwhile."""

from datetime import UTC, datetime

from alfamix_core.project.news import new_drops, new_samples

from alfamix_core.project import lock, rounds
from alfamix_core.project.ledger import freeze
from alfamix_core.records.round import Outcome


def begin(made, holder, run_id, forced=True):
    """Plan a round now and export it; return its record."""
    record, _ = rounds.begin(made.store, holder(run_id), datetime.now(UTC), force=forced)
    asked = made.questions(record.number, sorted(made.ledger(datetime.now(UTC)).pool()["sample_id"].to_pylist())[0])
    outcome = Outcome(queries=1, strategy="random", exported_at=datetime.now(UTC))
    rounds.mark_exported(made.store, record.number, run_id, outcome, datetime.now(UTC), objects=asked)
    lock.release(made.store, run_id)
    return rounds.read(made.store, record.number)[0]


def test_of_the_first_round_everything_is_new_and_then_what_came_since(made_anywhere, holder):
    made = made_anywhere
    made.drop("b", "x", "y")
    first = begin(made, holder, "run-1")
    assert sorted(new_samples(made.store, first).to_pylist()) == ["x", "y"]
    made.drop("a", "p", "q")
    made.drop("c", "r")
    second = begin(made, holder, "run-2")
    assert sorted(new_samples(made.store, second).to_pylist()) == ["p", "q", "r"]
    third = begin(made, holder, "run-3")
    assert new_samples(made.store, third).to_pylist() == []
    assert sorted(new_samples(made.store, first).to_pylist()) == ["x", "y"], "a round's news never change"
    assert sorted(new_samples(made.store, second).to_pylist()) == ["p", "q", "r"]


def test_drops_that_wait_are_those_that_the_newest_round_has_not_seen(made, holder):
    made.drop("a", "x", "y")
    first = begin(made, holder, "run-1")
    assert new_drops(made.store, freeze(made.store), first) == {}
    made.drop("b", "z")
    (key,) = new_drops(made.store, freeze(made.store), first)
    assert key == "drops/b/manifest.jsonl"
    assert set(new_drops(made.store, freeze(made.store), None)) == {"drops/a/manifest.jsonl", key}
