"""Write rules/latest.yml from the catalogue of metrics: `python -m monitoring.latest`."""

from pathlib import Path

import yaml

from alfamix_core.telemetry.metrics import ALL, ROUND_NUMBER, Metric

FILE = Path(__file__).parent / "rules" / "latest.yml"
EXPORTER = 'job="alfamix-exporter"'
_TOP = """\
# Written by `python -m monitoring.latest` from alfamix_core/telemetry/metrics.py; a test holds it to that.
# The latest value of what is told of a project: the exporter's where one reads the project, and what was pushed
# elsewhere. Labels of the scrape are left out, so that an exporter that moves makes no new series.
"""


def name(metric: Metric) -> str:
    """Return the recording rule's name, level:metric:operation."""
    return f"project:{metric.name}:latest"


def expression(metric: Metric) -> str:
    """Return the PromQL that chooses between the exporter's series and the pushed ones."""
    by = f"max by ({', '.join(metric.all_labels)})"
    return (
        f"{by} ({metric.name}{{{EXPORTER}}})"
        f" or ({by} ({metric.name}{{{EXPORTER.replace('=', '!=')}}}) "
        f"unless on (project) {ROUND_NUMBER.name}{{{EXPORTER}}})"
    )


def text() -> str:
    """Return the whole file."""
    rules = [{"record": name(metric), "expr": expression(metric)} for metric in ALL if metric.source == "project"]
    groups = [{"name": "alfamix-latest", "rules": rules}]
    dumped: str = yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000)
    return _TOP + dumped


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
