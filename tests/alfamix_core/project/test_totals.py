"""The sums that rounds carry are those over all of them, and drift is told beside the round before."""

from datetime import UTC, datetime

import pytest

from alfamix_core.project import lock, planning, rounds
from alfamix_core.project.totals import with_history
from alfamix_core.records.round import Drift, Outcome, StageTotal, Totals

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def outcome(**fields):
    return Outcome(**{"queries": 2, "strategy": "random", "exported_at": NOON, **fields})


@pytest.fixture
def export(made, holder):
    """Begin and export a round; return what it recorded."""
    made.drop("a", *"abcdefgh")

    def run(found):
        number = len(rounds.numbers(made.store)) + 1
        record, _ = planning.begin(made.store, holder(f"run-{number}"), NOON.replace(day=number), force=True)
        found = with_history(made.store, record, found)
        rounds.mark_exported(made.store, record.number, f"run-{number}", found, NOON)
        lock.release(made.store, f"run-{number}")
        return rounds.read(made.store, record.number)[0].outcome

    return run


def test_sums_are_over_all_rounds(export):
    export(outcome(stages={"train": StageTotal(seconds=2)}))
    export(outcome(stages={"train": StageTotal(seconds=3, gpu_seconds=6)}, promoted=True))
    third = export(outcome(stages={"train": StageTotal(seconds=1)}, strategy="alfamix", queries=3))
    fourth = export(outcome(strategy="alfamix", queries=1, promoted=True))
    assert third.totals == Totals(
        rounds={"alfamix": 1, "random": 2}, queries=7, gpu_seconds=6, stage_seconds=6, promotions=1
    )
    assert fourth.totals == Totals(
        rounds={"alfamix": 2, "random": 2}, queries=8, gpu_seconds=6, stage_seconds=6, promotions=2
    )


def test_the_first_model_that_was_measured_is_remembered(made, export):
    export(outcome())
    made.label("one", a="cat", b="dog")
    export(outcome(metrics={"accuracy": 0.5}))
    made.label("two", c="cat")
    last = export(outcome(metrics={"accuracy": 0.6}))
    assert (last.totals.first_metrics, last.totals.first_train_labels) == ({"accuracy": 0.5}, 2)


def test_the_shift_is_half_the_sum_of_the_differences_a_class_may_have_been_added(export):
    first = export(outcome(drift=Drift(embedding_distance=0.5, predicted_shares={"cat": 0.75, "dog": 0.25})))
    second = export(outcome(drift=Drift(predicted_shares={"cat": 0.5, "dog": 0.25, "owl": 0.25})))
    third = export(outcome(drift=Drift(embedding_distance=0.0)))
    assert first.drift.class_shift is None
    assert second.drift.class_shift == 0.25
    assert second.drift.embedding_distance == 0.5, "no drop came, so that of the last one stands"
    assert (third.drift.embedding_distance, third.drift.class_shift) == (0, None)
