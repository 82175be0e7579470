"""The metrics of a project are what its files say."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.project import lock, planning, rounds
from alfamix_core.project.state import measure
from alfamix_core.records.round import Drift, Outcome, StageTotal, Totals
from alfamix_core.telemetry import metrics as m
from alfamix_core.telemetry.exposition import Board

HOUR = timedelta(hours=1)


def outcome(**fields):
    return Outcome(
        **{"queries": 2, "strategy": "random", "exported_at": datetime(2026, 3, 1, 13, tzinfo=UTC), **fields}
    )


def export(made, holder, run_id, at, **fields):
    record, _ = planning.begin(made.store, holder(run_id), at, force=True)
    ids = sorted(made.ledger(at).pool({}, 0).read_all()["sample_id"].to_pylist())[:2]
    asked = made.questions(record.number, *ids, at=at)
    rounds.mark_exported(made.store, record.number, run_id, outcome(**fields), at, objects=asked)
    lock.release(made.store, run_id)


def round_state(board):
    return [
        name for name in ("planned", "failed", "lost", "exported", "closed") if board.get(m.ROUND_STATE, state=name)
    ]


def test_before_the_first_round(made, noon):
    made.drop("a", "x", "y")
    board = measure(made.store, datetime.now(UTC) + HOUR)
    assert round_state(board) == []
    assert board.get(m.ROUND_NUMBER) == 0
    assert board.get(m.ROUND_LAST_START) is None
    assert board.get(m.SAMPLES, state="pool", split="") == 2
    assert board.get(m.WAITING_DROPS) == 1
    assert board.get(m.OLDEST_WAITING_DROP) == pytest.approx(3600, abs=60)
    assert board.get(m.LOCK_HELD) == 0


def test_an_exported_round(made_anywhere, holder, noon):
    made = made_anywhere
    made.drop("a", *"abcdef")
    export(
        made,
        holder,
        "run-1",
        noon,
        summary={"cap": 0.4, "candidates": 1},
        metrics={"accuracy": 0.8, "macro_f1": 0.7, "expected_calibration_error": 0.1, "samples": 50.0},
        stages={"train": StageTotal(seconds=4, rows=100, bytes_read=5, gpu_seconds=8, retries=1)},
        totals=Totals(rounds={"random": 1}, queries=2, gpu_seconds=8, stage_seconds=10, promotions=1),
        drift=Drift(embedding_distance=0.25, class_shift=0.5),
        labels={"cat": 3, "dog": 1, "owl": 0},
        quarantined=0,
    )
    made.label("one", a="cat")
    board = measure(made.store, noon + HOUR)
    assert round_state(board) == ["exported"]
    assert board.get(m.ROUND_LAST_DURATION) == 3600
    assert board.get(m.SAMPLES, state="labelled", split="train") == 1
    assert board.get(m.OPEN_QUERIES) == 1
    assert board.get(m.ROUND_ANSWERED) == 0.5
    assert board.get(m.ANSWERS, kind="label") == 1
    assert board.get(m.LABELS) == 1
    assert board.get(m.STAGE_RATE, stage="train") == 25
    assert board.get(m.STAGE_RETRIES, stage="train") == 1
    assert board.get(m.GPU_SECONDS) == 8
    assert board.get(m.ROUNDS, strategy="random") == 1
    assert (board.get(m.CAP), board.get(m.CANDIDATES), board.get(m.FILLED)) == (0.4, 1, 0.5)
    assert board.get(m.MODEL_METRIC, split="test", metric="accuracy") == 0.8
    assert board.get(m.CALIBRATION, split="test") == 0.1
    assert board.get(m.MODEL_SAMPLES, split="test") == 50
    assert (board.get(m.DRIFT), board.get(m.DRIFT_CLASSES)) == (0.25, 0.5)
    assert board.get(m.CLASS_LABELS, **{"class": "cat"}) == 3
    assert board.get(m.WAITING_DROPS) == 0


def test_a_drop_that_no_round_has_seen_waits_until_one_does_even_if_segments_are_merged(made, holder, noon):
    made.drop("a", *"abcd")
    export(made, holder, "run-1", datetime.now(UTC))
    assert measure(made.store, datetime.now(UTC)).get(m.WAITING_DROPS) == 0
    made.drop("b", "x", "y")
    assert measure(made.store, datetime.now(UTC)).get(m.WAITING_DROPS) == 1
    export(made, holder, "run-2", datetime.now(UTC))
    assert measure(made.store, datetime.now(UTC)).get(m.WAITING_DROPS) == 0


def test_planned_lost_and_failed(made, holder, noon):
    made.drop("a", *"abcd")
    planning.begin(made.store, holder("run-1"), noon)
    assert round_state(measure(made.store, noon + HOUR)) == ["planned"]
    assert round_state(measure(made.store, noon + timedelta(days=9))) == ["lost"]
    lock.release(made.store, "run-1")
    assert round_state(measure(made.store, noon + HOUR)) == ["lost"]
    rounds.mark_failed(made.store, 1, "run-1", "no space")
    assert round_state(measure(made.store, noon + HOUR)) == ["failed"]


def test_budgets_and_what_labels_bought(made, holder, noon):
    made.configure(budgets={"labels": 10, "rounds_per_day": 2, "labels_per_day": None})
    made.drop("a", *"abcdefgh")
    made.drop("t", "s", "u", split="test", label="cat")
    export(made, holder, "run-1", noon, metrics={"accuracy": 0.5}, totals=Totals(queries=2))
    made.label("one", a="cat", b="dog")
    export(
        made,
        holder,
        "run-2",
        noon + HOUR,
        metrics={"accuracy": 0.54},
        totals=Totals(queries=4, first_metrics={"accuracy": 0.5}),
    )
    board = measure(made.store, noon + 2 * HOUR)
    assert board.get(m.BUDGET_USED, budget="labels") == 0.4
    assert board.get(m.BUDGET_USED, budget="rounds_per_day") == 1.0
    assert board.get(m.BUDGET_USED, budget="labels_per_day") is None
    assert board.get(m.LABELS_PER_POINT) == pytest.approx(2 / 4)


def test_as_a_process(made, noon):
    made.drop("a", "x", "y")
    command = [sys.executable, "-m", "alfamix_core.project.state", made.store.uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Board.from_json(done.stdout).get(m.SAMPLES, state="pool", split="") == 2
    done = subprocess.run([*command[:-1], made.store.uri + "-not"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not a project" in done.stderr
