"""The catalogue as a page: docs/metrics.md."""

import textwrap

from alfamix_core.telemetry.metrics import ALL, Metric, Source

_TITLES: dict[Source, str] = {
    "project": "Project",
    "trigger": "Trigger",
    "exporter": "Exporter",
}
_INTRODUCTIONS: dict[Source, str] = {
    "project": "These metrics are derived from the project's files. `alfamix exporter` serves them, or `finish` "
    "publishes them as `metrics.way` says: to a Pushgateway, with PUT under the grouping key `project`, or as a "
    "file for node_exporter. Choose one of the two ways, because with both every metric appears twice.",
    "trigger": "`alfamix trigger` serves these metrics on its own port; the counters start at 0 with the process.",
    "exporter": "`alfamix exporter` serves these metrics about itself.",
}


def markdown() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "This page lists every metric, as defined in `alfamix_core/telemetry/metrics.py`. `alfamix metrics --markdown`",
        "generates it; a test compares it.",
    ]
    for source, title in _TITLES.items():
        lines += [
            "",
            f"## {title}",
            "",
            textwrap.fill(_INTRODUCTIONS[source], width=120),
            "",
            "| metric | type | labels | meaning |",
            "|---|---|---|---|",
        ]
        lines += [_row(metric) for metric in ALL if metric.source == source]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {', '.join(metric.all_labels)} | {metric.help} |"
