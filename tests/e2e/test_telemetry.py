"""What telemetry shows of two rounds."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alfamix_core.project import rounds
from alfamix_core.project.state import measure
from alfamix_core.storage import open_store
from alfamix_core.telemetry import metrics as m
from alfamix_core.telemetry.events import parse
from tests.e2e.conftest import INIT, SMALL, Command, settings


@pytest.mark.slow
def test_two_rounds_on_digits_have_all_events_and_metrics(
    tmp_path: Path, digits: Path, alfamix: Command, environment: dict[str, str]
):
    project, page = tmp_path / "project", tmp_path / "page.prom"
    alfamix("init", project, *INIT, *settings(*SMALL, "metrics.way=textfile", f"metrics.path={page}"))
    alfamix("drop", project, digits)
    environment["ALFAMIX_LOG"] = "human"  # of the command alone: what it reads of the stages is JSON
    shown = [alfamix("round", project, "--verbose").stdout]
    alfamix("answer", project, "--oracle", digits.parent / "answers.csv")
    shown.append(alfamix("round", project, "--verbose").stdout)
    assert " round 1 embed 0 finished seconds=" in shown[0]
    lines = [line for path in (tmp_path / "work").rglob("*.log") for line in path.read_text().splitlines()]
    events = [event for event in map(parse, lines) if event]
    assert {event["project"] for event in events} == {json.loads((project / "project.json").read_text())["name"]}
    assert {event["round"] for event in events if event["stage"] not in ("ingest", "finish")} == {1, 2}
    assert {event["alfamix"] for event in events} >= {"started", "progress", "finished", "round", "outcome", "metrics"}
    store = open_store(project.as_uri())
    board = measure(store, datetime.now(UTC))
    last = rounds.read(store, 2)[0].outcome
    assert last is not None
    assert last.totals is not None
    assert last.totals.queries == 40
    assert last.drift is not None
    assert sum(last.drift.predicted_shares.values()) == pytest.approx(1, abs=1e-5)
    assert board.get(m.DRIFT) is not None
    assert board.get(m.DRIFT_CLASSES) is not None
    assert board.get(m.STAGE_READ, stage="embed") > 0
    assert board.get(m.STAGE_RETRIES, stage="embed") == 0
    assert "alfamix_queue_open_queries" in page.read_text()
