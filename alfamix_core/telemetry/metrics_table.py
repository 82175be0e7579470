"""docs/metrics.md: the catalogue as a page."""

from alfamix_core.telemetry.metrics import ALL, Metric, Source

_TITLES: dict[Source, str] = {
    "project": "Of the project",
    "trigger": "Of the trigger",
    "exporter": "Of the exporter",
}
_WORDS: dict[Source, str] = {
    "project": "Derived from the project's files. Served by `alfamix exporter`, or published by `export` and `finish` "
    "as `metrics.way` says (to a Pushgateway with PUT under the grouping key `project`, or as a file for "
    "node_exporter). "
    "Choose one of the two ways: both at once show everything twice.",
    "trigger": "Served by `alfamix trigger` on its own port; they begin at 0 with the process.",
    "exporter": "Served by `alfamix exporter` about itself.",
}


def markdown() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Every metric, as defined in `alfamix_core/telemetry/metrics.py`. Made by `alfamix metrics --markdown`; a test",
        "compares.",
    ]
    for source, title in _TITLES.items():
        lines += [
            "",
            f"## {title}",
            "",
            _WORDS[source],
            "",
            "| metric | type | labels | meaning |",
            "|---|---|---|---|",
        ]
        lines += [_row(metric) for metric in ALL if metric.source == source]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {', '.join(metric.all_labels)} | {metric.help} |"
