"""Budgets: by hand, and that no round starts beyond them."""

from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.project import lock, planning, rounds
from alfamix_core.project.state import measure
from alfamix_core.records.lock import Holder
from alfamix_core.records.round import Outcome
from alfamix_core.telemetry import metrics as m

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def asked(made, at, queries):
    """A round that began then and asked so many questions."""
    record, _ = planning.begin(made.store, Holder(run_id=f"r-{at:%d%H}"), at, force=True)
    outcome = Outcome(queries=queries, strategy="random", exported_at=at)
    rounds.mark_exported(made.store, record.number, record.run_id, outcome, at)
    lock.release(made.store, record.run_id)


@pytest.mark.parametrize(
    ("budgets", "hours", "text"),
    [
        ({}, 1, ""),
        ({"rounds_per_day": 2}, 1, "2 rounds began in the last 24 hours, and budgets.rounds_per_day is 2"),
        ({"rounds_per_day": 3}, 1, ""),
        ({"rounds_per_day": 2}, 22, ""),
        ({"labels_per_day": 11}, 1, "10 questions were asked in the last 24 hours, a round asks 2, and"),
        ({"labels_per_day": 12}, 1, ""),
        ({"labels_per_day": 11}, 22, ""),
        ({"labels": 11}, 1, "10 questions were asked, a round asks 2, and budgets.labels is 11"),
        ({"labels": 11}, 99, "10 questions were asked, a round asks 2, and budgets.labels is 11"),
        ({"labels": 12}, 99, ""),
        ({"rounds_per_day": 0}, 99, "0 rounds began in the last 24 hours, and budgets.rounds_per_day is 0"),
    ],
)
def test_two_rounds_three_hours_ago_and_at_noon_by_hand(made, budgets, hours, text):
    """They asked 4 and 6 questions; the pool is 2, less than the budget. Force makes no difference."""
    made.drop("first", "a", "b")
    asked(made, NOON - timedelta(hours=3), 4)
    asked(made, NOON, 6)
    made.configure(budgets=budgets)
    plan = planning.consider(made.store, NOON + timedelta(hours=hours), force=True)
    assert (plan.decision, plan.text[: len(text)] if text else "") == ("idle" if text else "plan", text)


@pytest.mark.parametrize(("allowed", "decision"), [(5, "idle"), (6, "plan")])
def test_questions_of_the_audit_are_questions(made, allowed, decision):
    """Nothing is left in the pool, and the audit takes 2 of the reserve: 4 were asked, so the round makes 6."""
    made.configure(audit={"share": 0.99, "per_round": 2})
    made.drop("first", *"abcd")
    asked(made, NOON, 4)
    made.configure(audit={"share": 0.99, "per_round": 2}, budgets={"labels": allowed})
    plan = planning.consider(made.store, NOON + timedelta(hours=1), force=True)
    assert (plan.counts.pool, plan.counts.reserve, plan.decision) == (0, 4, decision)


@pytest.mark.parametrize("hours", [1, 22, 99])
@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_the_metric_is_used_up_when_the_rule_says_so_whatever_was_abandoned(made, hours, allowed):
    """Two rounds that asked and one that was abandoned; the rule refuses a round as soon as the metric reaches 1."""
    made.drop("first", "a", "b")
    asked(made, NOON - timedelta(hours=3), 4)
    asked(made, NOON, 6)
    planning.begin(made.store, Holder(run_id="given-up"), NOON, force=True)
    lock.release(made.store, "given-up")
    rounds.abandon(made.store, "nobody answers", NOON + timedelta(minutes=1))
    made.configure(budgets={"rounds_per_day": allowed, "labels_per_day": 100, "labels": 100})
    now = NOON + timedelta(hours=hours)
    board = measure(made.store, now)
    begun = [record for record in rounds.read_all(made.store) if record.planned_at > now - timedelta(hours=24)]
    counted = [record for record in begun if record.outcome is not None]
    assert board.get(m.BUDGET_USED, budget="rounds_per_day") == (len(counted) / allowed if allowed else 1)
    assert board.get(m.BUDGET_USED, budget="labels_per_day") == sum(record.outcome.queries for record in counted) / 100
    plan = planning.consider(made.store, now, force=True)
    assert (plan.decision == "idle") == (board.get(m.BUDGET_USED, budget="rounds_per_day") >= 1)


def test_an_unfinished_round_goes_on_whatever_is_left(made):
    made.drop("first", "a")
    planning.begin(made.store, Holder(run_id="r"), NOON)
    made.configure(budgets={"rounds_per_day": 0, "labels": 0})
    assert planning.consider(made.store, NOON).decision == "resume"
