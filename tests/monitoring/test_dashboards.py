"""The dashboards: fresh, readable by Prometheus, about existing metrics, and legibly laid out."""

import json
from itertools import combinations

import pytest
import yaml

from monitoring import dashboards
from tests.monitoring.expressions import used
from tests.monitoring.rules import MONITORING, alerts
from tests.monitoring.test_rules import wrong
from tests.servers.prometheus import promtool

FILES = sorted((MONITORING / "dashboards").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
UNITS = {"short", "s", "bytes", "percentunit"}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board):
    """Return every PromQL of a dashboard, with a project in place of the variable."""
    found = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    found += [each["expr"] for each in board["annotations"]["list"]]
    return [expression.replace("$project", "birds") for expression in found]


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_the_file_is_what_the_generator_writes(name):
    assert dashboards.file(name).read_text(encoding="utf-8") == dashboards.text(name), "run `make docs`"


def test_there_is_no_other_file():
    assert sorted(dashboards.file(name) for name in dashboards.DASHBOARDS) == FILES


def test_prometheus_parses_every_expression(tmp_path):
    """As rules: promtool reads them with Prometheus' own parser."""
    every = [expression for board in BOARDS.values() for expression in expressions(board)]
    rules = [{"record": f"dashboard:{index}", "expr": expression} for index, expression in enumerate(every)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(every)} rules found" in done.stdout
    rules[0]["expr"] += ")"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    assert promtool("check", "rules", path).returncode != 0


@each_board
def test_every_metric_and_label_exists(board):
    assert [line for expression in expressions(board) for line in wrong(expression)] == []


@each_board
def test_every_query_selects_the_chosen_project(board):
    for panel in panels(board):
        for target in panel["targets"]:
            assert "$project" in target["expr"], target["expr"]
            assert target["expr"].count("{project=") == len(
                [name for name in _occurrences(target["expr"]) if name != "ALERTS"]
            ), target["expr"]


def _occurrences(expression):
    return [name for name in used(expression).metrics for _ in range(expression.count(name + "{"))]


@each_board
def test_the_legend_names_labels_that_the_series_have(board):
    for panel in panels(board):
        for target in panel["targets"]:
            for label in _braces(target["legendFormat"]):
                (metric,) = used(target["expr"]).metrics
                assert wrong(f"sum by ({label}) ({metric})") == []


def _braces(legend):
    return [part.split("}}")[0] for part in legend.split("{{")[1:]]


@each_board
def test_datasource_and_project_are_variables(board):
    assert [(each["name"], each["type"]) for each in board["templating"]["list"]] == [
        ("datasource", "datasource"),
        ("project", "query"),
    ]
    for panel in panels(board):
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_uids_and_titles_are_unique_and_match_the_files():
    assert {board["uid"] for board in BOARDS.values()} == set(BOARDS)
    assert {board["title"].lower().replace(" ", "-") for board in BOARDS.values()} == set(BOARDS)


@each_board
def test_no_panel_overlaps_another_or_leaves_the_grid(board):
    places = [panel["gridPos"] for panel in board["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert place["h"] >= 1
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


@each_board
def test_every_panel_has_a_title_a_unit_and_thresholds(board):
    titles = [panel["title"] for panel in panels(board)]
    assert all(titles)
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS
        assert defaults["thresholds"]["steps"][0]["value"] is None


def test_every_alert_with_a_limit_has_it_drawn():
    """Except for the states, which are drawn as states, the exporter, and rises, which are not drawn."""
    drawn = {
        panel.limit
        for rows in (dashboards.OVERVIEW, dashboards.ROUND, dashboards.QUEUE)
        for row in rows
        for panel in row.panels
        if panel.limit
    }
    states = {"AlfamixRoundFailing", "AlfamixRoundLost", "AlfamixExporterDown", "AlfamixCalibrationWorse"}
    rises = {"AlfamixInboxChanged"}
    assert drawn == {alert.name for alert in alerts()} - states - rises


def test_a_limit_is_the_number_of_the_alert():
    assert dashboards.limit_of("AlfamixRoundOverdue", "round_last_success") == 7 * 86_400
    assert dashboards.limit_of("AlfamixDrift", "drift_predicted_classes") == 0.3
    assert dashboards.limit_of("AlfamixDrift", "drift_embedding_distance") == 0.5
    overview = {panel["title"]: panel for panel in BOARDS["alfamix-overview"]["panels"]}
    steps = overview["Oldest waiting drop"]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("green", None), ("red", 86_400.0)]
