import math
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from alfamix_core.telemetry import metrics as m
from alfamix_core.telemetry import metrics_table
from alfamix_core.telemetry.exposition import Board, counter, gauge, registry

ROOT = Path(__file__).parents[3]

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def full_board(project="birds"):
    """Every metric of a project with a value, labels made up."""
    board = Board(project)
    for metric in m.ALL:
        if metric.source == "project":
            board.set(metric, 1, **{name: f"{name}-1" for name in metric.labels})
    return board


def check(exposition: bytes):
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_board_shows_its_values_and_the_project_on_each():
    board = Board("birds")
    board.set(m.OPEN_QUERIES, 7)
    board.set(m.SAMPLES, 3, state="pool", split="")
    board.set(m.DRIFT, None)
    found = registry([board])
    assert found.get_sample_value("alfamix_queue_open_queries", {"project": "birds"}) == 7
    assert found.get_sample_value("alfamix_data_samples", {"project": "birds", "state": "pool", "split": ""}) == 3
    assert b"alfamix_drift" not in generate_latest(found)


def test_boards_of_several_projects_are_one_exposition():
    text = generate_latest(registry([full_board("birds"), full_board("cats")])).decode()
    assert text.count("# TYPE alfamix_queue_open_queries gauge") == 1
    assert text.count("\nalfamix_queue_open_queries{") == 2
    assert 'alfamix_queries_total{project="cats"} 1.0' in text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        Board("birds").set(m.DRIFT, value)


def test_labels_that_a_metric_has_not_are_refused():
    with pytest.raises(ValueError, match="labels"):
        Board("birds").set(m.SAMPLES, 1, state="pool")


def test_json_there_and_back():
    text = full_board().to_json()
    assert Board.from_json(text).to_json() == text
    assert generate_latest(registry([Board.from_json(text)])) == generate_latest(registry([full_board()]))


@promtool
def test_promtool_finds_nothing_to_say():
    check(generate_latest(registry([full_board()])))


@promtool
def test_promtool_finds_nothing_to_say_of_a_process():
    own = CollectorRegistry()
    for metric in m.ALL:
        if metric.source != "project":
            make = counter if metric.kind == "counter" else gauge
            make(metric, own).labels(*metric.all_labels)
    check(generate_latest(own))


def test_names_follow_the_rules():
    for metric in m.ALL:
        assert metric.name.startswith("alfamix_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.unit:
            assert f"_{metric.unit}" in metric.name
        assert "project" not in metric.labels


def test_the_page_has_every_metric_and_is_fresh():
    page = metrics_table.markdown()
    assert all(f"`{metric.name}`" in page for metric in m.ALL)
    assert (ROOT / "docs/metrics.md").read_text("utf-8") == page, "run `make docs`"
