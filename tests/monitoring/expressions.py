"""The metrics and labels to which a PromQL expression refers. promtool checks that it is PromQL."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"|(?P<range>\[[^\]]*\])"
    r"|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"|(?P<number>\d[\d.]*(?:[eE][+-]?\d+)?[a-z]*)"
    r"|(?P<sign>[=!]~|[=!<>]=|\S)"
)
_OPERATORS = {"and", "or", "unless", "bool", "atan2", "offset", "start", "end", "inf", "nan"}
_GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_AFTER_A_FUNCTION = {"(", "by", "without"}


@dataclass(frozen=True)
class Used:
    """Metrics that an expression reads, and labels that it names in matchers and groupings."""

    metrics: frozenset[str]
    labels: frozenset[str]


def used(expression: str) -> Used:
    """Read an expression that promtool accepts.

    A name before a bracket or a grouping is a function, inside of braces or of a grouping's brackets a label, and
    anything else except operators a metric.
    """
    tokens = [(found.lastgroup, found[0]) for found in _TOKEN.finditer(expression)]
    metrics, labels = set(), set()
    inside = ""  # the sign that ends a list of labels
    for index, (kind, text) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        before = tokens[index - 1][1].lower() if index else ""
        if inside:
            if text == inside:
                inside = ""
            elif kind == "name":
                labels.add(text)
        elif text == "{":
            inside = "}"
        elif text == "(" and before in _GROUPINGS:
            inside = ")"
        elif kind == "name" and following not in _AFTER_A_FUNCTION and text.lower() not in _OPERATORS | _GROUPINGS:
            metrics.add(text)
    return Used(frozenset(metrics), frozenset(labels))
