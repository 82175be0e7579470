"""Write the Grafana dashboards: `python -m monitoring.dashboards`.

A dashboard consists of rows of panels; a panel is a line here and a page of JSON there. The order determines positions
on the grid and identifiers. If an alert has a limit, the panel draws it with the number from the alert.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
FOLDER = HERE / "dashboards"
GRID = 24
"""Columns of Grafana's grid."""
GREEN, RED = "green", "red"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_LINKS = {
    "title": "alfamix",
    "type": "dashboards",
    "tags": ["alfamix"],
    "asDropdown": False,
    "keepTime": True,
    "includeVars": True,
}
_STATES = (("planned", "blue"), ("failed", RED), ("lost", RED), ("exported", GREEN), ("closed", GREEN))


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: title of the panel.
        queries: (PromQL, legend) pairs; the legend may name labels as {{label}}.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the kind of panel.
        width: width in columns of the grid.
        limit: name of the alert whose threshold is drawn; empty for none.
        lower: whether the threshold is a lower limit.
        red_from: threshold to draw if there is no alert.
        about: description that readers need to understand the panel.
        options: options of the kind of panel.
        mappings: (value, text, colour) triples for values shown as text.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    limit: str = ""
    lower: bool = False
    red_from: float | None = None
    about: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    mappings: tuple[tuple[float, str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Panels side by side under a heading; they wrap at the end of the grid.

    Attributes:
        title: heading, often the question that the panels answer.
        height: height of each panel, in units of 30 pixels.
        panels: panels from left to right.
    """

    title: str
    height: int
    panels: Sequence[Panel]


def stat(title: str, expression: str, unit: str = "short", **fields: Any) -> Panel:
    """Return a panel with one number."""
    return Panel(title, [(expression, "")], unit, "stat", **{"width": 4, **fields})


def of(metric: str, *matchers: str) -> str:
    """Return the PromQL for the latest value of a metric, named without its prefix, of the selected project."""
    return selected(f"project:alfamix_{metric}:latest", *matchers)


def selected(series: str, *matchers: str) -> str:
    """Return the PromQL for the series of the selected project."""
    all_matchers = ", ".join(('project="$project"', *matchers))
    return f"{series}{{{all_matchers}}}"


def limit_of(alert: str, series: str) -> float:
    """Return the limit of an alert, from the part of its expression that reads the series."""
    for group in yaml.safe_load((HERE / "rules" / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            if rule["alert"] == alert:
                (part,) = [part for part in re.split(r"\bor\b", rule["expr"]) if series in part]
                comparison = re.search(r"[<>]=?\s*([\d.]+)\s*$", part)
                assert comparison, f"{alert} does not end in a comparison with a number"
                return float(comparison[1])
    raise KeyError(alert)


def build(name: str, title: str, about: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return a dashboard as the JSON document that Grafana reads."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_heading(len(panels) + 1, row.title, y))
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > GRID:
                x, y = 0, y + row.height
            panels.append(_panel(len(panels) + 1, panel, {"x": x, "y": y, "w": panel.width, "h": row.height}))
            x += panel.width
        y += row.height
    return {
        "uid": f"alfamix-{name}",
        "title": title,
        "description": about,
        "tags": ["alfamix"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-30d", "to": "now"},
        "timezone": "utc",
        "links": [_LINKS],
        "templating": {"list": [_datasource(), _project()]},
        "annotations": {"list": [_rounds()]},
        "panels": panels,
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def _project() -> dict[str, Any]:
    query = "label_values(project:alfamix_round_number:latest, project)"
    return {
        "name": "project",
        "label": "Project",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "project"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
    }


def _rounds() -> dict[str, Any]:
    return {
        "name": "Rounds exported",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": 'changes(project:alfamix_round_last_success_timestamp_seconds:latest{project="$project"}[5m]) > 0',
        "titleFormat": "round exported",
    }


def _heading(number: int, title: str, y: int) -> dict[str, Any]:
    position = {"x": 0, "y": y, "w": GRID, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}


def _panel(number: int, panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": expression,
            "legendFormat": legend or "__auto",
            "instant": panel.kind != "timeseries",
            "range": panel.kind == "timeseries",
            **({"format": "table"} if panel.kind == "table" else {}),
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {**_OPTIONS.get(panel.kind, {}), **panel.options},
        "targets": targets,
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "basic",
        "orientation": "horizontal",
    },
}


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if panel.red_from is not None:
        steps.append({"color": RED, "value": panel.red_from})
    if panel.limit:
        series = re.findall(r"[a-z_]+:[a-z0-9_:]+", panel.queries[0][0])[0]
        limit = limit_of(panel.limit, series)
        good, bad = (RED, GREEN) if panel.lower else (GREEN, RED)
        steps = [{"color": good, "value": None}, {"color": bad, "value": limit}]
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"lineWidth": 2, "showPoints": "auto", "spanNulls": True, "axisSoftMin": 0}
        if panel.limit:
            custom["thresholdsStyle"] = {"mode": "dashed"}
    mappings = [
        {"type": "value", "options": {f"{value:g}": {"text": text, "color": colour, "index": index}}}
        for index, (value, text, colour) in enumerate(panel.mappings)
    ]
    return {
        "unit": panel.unit,
        "mappings": mappings,
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": custom,
        **({"color": {"mode": "thresholds"}} if panel.kind != "timeseries" else {}),
    }


_TIME_SINCE_EXPORT = f"time() - {of('round_last_success_timestamp_seconds')}"
_RUNNING_TIME = f"(time() - {of('round_last_start_timestamp_seconds')}) * {of('lock_held')}"


def state_panel(width: int) -> Panel:
    """Return the panel with the newest round's state."""
    # a panel shows a number, so a state is shown by its index in _STATES
    terms = (f"{index} * {of('round_state', f'state={json.dumps(state)}')}" for index, (state, _) in enumerate(_STATES))
    expression = f"sum({' or '.join(terms)})"
    mappings = tuple((float(index), state, colour) for index, (state, colour) in enumerate(_STATES))
    return stat("Newest round", expression, width=width, mappings=mappings)


OVERVIEW = [
    Row(
        "Is the loop healthy?",
        4,
        [
            stat(
                "Alerts firing",
                'count(ALERTS{alertname=~"Alfamix.*", alertstate="firing", project=~"$project|"}) or vector(0)',
                about="Alerts of this project and of the exporter. docs/runbook.md has a section on each.",
                red_from=1,
            ),
            state_panel(4),
            stat("Time since the last export", _TIME_SINCE_EXPORT, "s", limit="AlfamixRoundOverdue"),
            stat(
                "Oldest waiting drop",
                of("data_oldest_waiting_drop_age_seconds"),
                "s",
                limit="AlfamixDropWaiting",
            ),
            stat("Open questions", of("queue_open_queries")),
            stat(
                "Trigger lag",
                selected("project:alfamix_trigger:lag_seconds"),
                "s",
                limit="AlfamixTriggerLag",
                about="Time for which something new has waited for a run, or the project has not been listed. Empty if "
                "no trigger is scraped.",
            ),
        ],
    ),
    Row(
        "What is wrong?",
        7,
        [
            Panel(
                "Alerts",
                [('ALERTS{alertname=~"Alfamix.*", project=~"$project|"}', "")],
                kind="table",
                width=12,
                options={"showHeader": True, "cellHeight": "sm"},
            ),
            Panel(
                "State of the newest round",
                [(f"{of('round_state')} == 1", "{{state}}")],
                width=12,
                about="At any time, one line has the value 1.",
            ),
        ],
    ),
    Row(
        "Is it worth its labels?",
        8,
        [
            Panel(
                "Accuracy",
                [
                    (of("model_metric", 'metric="accuracy"'), "{{split}}"),
                    (of("champion_metric", 'metric="accuracy"'), "champion at its promotion"),
                ],
                "percentunit",
            ),
            Panel("Labels", [(of("cost_labels"), "given"), (of("queries_total"), "asked")]),
            Panel(
                "Gain over the champion",
                [(of("model_gain"), "promotion.metric")],
                "percentunit",
                about="Gain of the newest model on the same samples. Below 0, the champion is better.",
            ),
            stat("Labels per point of 0.01", of("cost_labels_per_point"), width=6),
            stat("GPU time of all rounds", of("cost_gpu_seconds_total"), "s", width=6),
            stat(
                "Label budget spent",
                of("budget_used_ratio", 'budget="labels"'),
                "percentunit",
                width=6,
                limit="AlfamixBudgetNearlySpent",
                about="Share of budgets.labels; empty if it is not set.",
            ),
            stat(
                "Rounds since the champion",
                selected("project:alfamix_champion:rounds_behind"),
                width=6,
                limit="AlfamixChampionStale",
            ),
        ],
    ),
    Row(
        "Can its answers be trusted?",
        8,
        [
            Panel(
                "Calibration error",
                [(of("model_expected_calibration_error"), "{{split}}")],
                "percentunit",
                about="Expected calibration error; AlfamixCalibrationWorse watches its rise over 30 days.",
            ),
            Panel(
                "Fall in accuracy over 30 days",
                [
                    (selected("project:alfamix_accuracy:fall30d"), "fall"),
                    (selected("project:alfamix_accuracy:noise"), "noise of the test split"),
                ],
                "percentunit",
                limit="AlfamixAccuracyFell",
                about="The alert fires if the fall exceeds both the dashed line and the noise.",
            ),
            Panel(
                "Drift of the newest drop",
                [
                    (of("drift_embedding_distance_ratio"), "embeddings"),
                    (of("drift_predicted_classes_ratio"), "predicted classes"),
                ],
                limit="AlfamixDrift",
                about="The dashed line is the limit for embeddings.",
            ),
        ],
    ),
]

ROUND = [
    Row(
        "The newest round",
        4,
        [
            stat("Number", of("round_number")),
            state_panel(4),
            stat(
                "Running for",
                _RUNNING_TIME,
                "s",
                limit="AlfamixRoundStuck",
                about="0 while no run holds the project's lock.",
            ),
            stat("Duration of the last round", of("round_last_duration_seconds"), "s"),
            stat("Questions asked", of("round_queries")),
            stat(
                "Share of the quarantine limit",
                selected("project:alfamix_quarantine:limit_used"),
                "percentunit",
                limit="AlfamixQuarantineShare",
                about="Share of unreadable samples divided by limits.quarantine_share. Above 100 %, a round fails.",
            ),
        ],
    ),
    Row(
        "Stages of the last exported round",
        9,
        [
            Panel("Time", [(of("stage_duration_seconds"), "{{stage}}")], "s", "bargauge", width=6),
            Panel("Samples per second", [(of("stage_rows_per_second"), "{{stage}}")], "short", "bargauge", width=6),
            Panel("Peak memory", [(of("stage_peak_memory_bytes"), "{{stage}}")], "bytes", "bargauge", width=6),
            Panel("Bytes of samples read", [(of("stage_read_bytes"), "{{stage}}")], "bytes", "bargauge", width=6),
            Panel("Samples", [(of("stage_rows"), "{{stage}}")], "short", "bargauge", width=6),
            Panel("GPU time", [(of("stage_gpu_seconds"), "{{stage}}")], "s", "bargauge", width=6),
            Panel("GPU memory", [(of("stage_gpu_peak_memory_bytes"), "{{stage}}")], "bytes", "bargauge", width=6),
            Panel("Attempts beyond the first", [(of("stage_retries"), "{{stage}}")], "short", "bargauge", width=6),
        ],
    ),
    Row(
        "Round after round",
        8,
        [
            Panel("Time by stage", [(of("stage_duration_seconds"), "{{stage}}")], "s"),
            Panel(
                "Candidates of the strategy",
                [(of("selection_candidates"), "candidates")],
                about="Samples among which the strategy chose; empty if it has no candidates.",
            ),
            Panel(
                "Selection",
                [
                    (of("selection_cap_ratio"), "cap of ALFA-Mix"),
                    (of("selection_filled_ratio"), "queries beyond the candidates"),
                ],
                "percentunit",
            ),
            Panel("Queries short of the budget", [(of("selection_short_by"), "missing")]),
            Panel(
                "Unreadable samples",
                [(of("round_quarantined_ratio"), "share"), (of("round_quarantine_limit_ratio"), "limit")],
                "percentunit",
            ),
            Panel("Agreement with the champion", [(of("model_agreement_ratio"), "test")], "percentunit"),
        ],
    ),
    Row(
        "Classes",
        10,
        [
            Panel(
                "Recall on test", [(of("model_class_recall_ratio"), "{{class}}")], "percentunit", "bargauge", width=12
            ),
            Panel("Labels", [(of("data_class_labels"), "{{class}}")], "short", "bargauge", width=12),
        ],
    ),
]

QUEUE = [
    Row(
        "Do people have enough to do, and not too much?",
        4,
        [
            stat("Open questions", of("queue_open_queries")),
            stat(
                "Share of a round's budget",
                f"{of('queue_open_queries')} / {of('round_budget_queries')}",
                "percentunit",
                limit="AlfamixQueueStarving",
                lower=True,
            ),
            stat(
                "Share of queue.max_open",
                f"{of('queue_open_queries')} / {of('queue_max_open_queries')}",
                "percentunit",
                limit="AlfamixQueueFlooded",
            ),
            stat(
                "Time since the newest answer",
                f"time() - {of('queue_last_answer_timestamp_seconds')}",
                "s",
                limit="AlfamixAnswersStopped",
            ),
            stat("Last round decided", of("queue_round_answered_ratio"), "percentunit"),
            stat("Annotator agreement", of("queue_annotator_agreement_ratio"), "percentunit"),
        ],
    ),
    Row(
        "Over time",
        8,
        [
            Panel(
                "Open questions and budget",
                [(of("queue_open_queries"), "open"), (of("round_budget_queries"), "budget of a round")],
            ),
            Panel("Answers per day", [(f"increase({of('queue_answers_total')}[1d])", "{{kind}}")]),
            Panel(
                "Time from question to answer", [(of("queue_answer_time_seconds"), "percentile {{percentile}}")], "s"
            ),
            Panel(
                "Agreement between annotators",
                [(of("queue_annotator_agreement_ratio"), "share of pairs")],
                "percentunit",
            ),
            Panel("Samples by state", [(selected("project:alfamix_data_samples:sum"), "{{state}}")]),
            Panel("Labelled samples", [(of("data_samples", 'state="labelled"'), "{{split}}")]),
        ],
    ),
    Row(
        "What waits, and what starts rounds",
        8,
        [
            Panel("Drops that no round has seen", [(of("data_waiting_drops"), "drops")]),
            Panel(
                "Files and lines that cannot be used",
                [(of("data_set_aside"), "set aside")],
                limit="AlfamixDataSetAside",
                about="`alfamix doctor` names file, line and reason. Rounds continue without them.",
            ),
            Panel(
                "Loaded files that were changed or deleted",
                [
                    (of("data_vanished_lines"), "lines that are gone"),
                    (of("data_deleted_files"), "files that are gone"),
                ],
                about="Their content still counts. `alfamix doctor` names the files.",
            ),
            Panel(
                "Trigger",
                [
                    (f"increase({selected('alfamix_trigger_events_total')}[1h])", "events, {{source}}"),
                    (f"increase({selected('alfamix_trigger_starts_total')}[1h])", "runs started"),
                ],
                about="Counts per hour.",
            ),
            Panel(
                "Trigger: errors and messages",
                [
                    (f"increase({selected('alfamix_trigger_errors_total')}[1h])", "errors, {{source}}"),
                    (f"increase({selected('alfamix_trigger_messages_total')}[1h])", "messages, {{kind}}"),
                ],
                about="Counts per hour.",
            ),
        ],
    ),
]

DASHBOARDS = {
    "overview": build("overview", "Alfamix overview", "Is the loop healthy, and is it worth its labels?", OVERVIEW),
    "round": build("round", "Alfamix round", "The newest round, and the stages of the last exported one.", ROUND),
    "queue": build("queue", "Alfamix queue", "What people are asked, and what they answer.", QUEUE),
}


def text(name: str) -> str:
    """Return the content of a dashboard's file."""
    return json.dumps(DASHBOARDS[name], indent=1, ensure_ascii=False) + "\n"


def file(name: str) -> Path:
    """Return the path of a dashboard's file."""
    return FOLDER / f"alfamix-{name}.json"


if __name__ == "__main__":
    for board in DASHBOARDS:
        file(board).write_text(text(board), encoding="utf-8")
