"""The rule files, as data."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
TESTS = sorted((MONITORING / "rules" / "tests").glob("*.yml"))
RUNBOOK = MONITORING.parent / "docs" / "runbook.md"
_DURATION = re.compile(r"(\d+)(ms|[smhdw])")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Alert:
    """An alerting rule."""

    name: str
    expression: str
    waits: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def anchor(self) -> str:
        """Anchor of its section of the runbook, as GitHub derives it from the heading."""
        return self.name.lower()


def rules() -> list[dict[str, Any]]:
    """Return every rule of every file."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[Alert]:
    """Return the alerts in order."""
    return [
        Alert(rule["alert"], rule["expr"], rule.get("for", "0s"), rule.get("labels", {}), rule.get("annotations", {}))
        for rule in rules()
        if "alert" in rule
    ]


def recorded() -> dict[str, str]:
    """Return the expressions of the recording rules by name."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def hurried(folder: Path, times: float, interval: int) -> list[Path]:
    """Write the rules with every ``for:`` shortened, for a test that cannot wait; nothing else changes.

    Args:
        folder: into which they are written, under their own names.
        times: by which each duration is divided; it stays at three evaluations at least.
        interval: between two evaluations, seconds.

    Returns:
        The files.
    """
    written = []
    for path in RULES:
        text = yaml.safe_load(path.read_text())
        for group in text["groups"]:
            group["interval"] = f"{interval}s"
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = f"{max(3 * interval, round(seconds(rule['for']) / times))}s"
        written.append(folder / path.name)
        written[-1].write_text(yaml.safe_dump(text, sort_keys=False))
    return written


def seconds(duration: str) -> float:
    """Return a duration such as 1h30m in seconds."""
    parts = _DURATION.findall(duration)
    assert "".join(count + unit for count, unit in parts) == duration, duration
    return sum(int(count) * _SECONDS[unit] for count, unit in parts)
