"""The settings of a record, section by section: name, type, default and meaning of each."""

import inspect
import json
import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from alfamix_core.records.project import Project
from alfamix_core.records.record import Record


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: Name that ``--set`` takes, such as ``training.max_epochs``.
        kind: Human-readable type and bounds.
        default: Default as JSON; empty if the setting is required.
        meaning: Description of the field, with its unit.
    """

    name: str
    kind: str
    default: str
    meaning: str


def settings(record: type[Record] = Project, prefix: str = "", section: Record | None = None) -> Iterator[Setting]:
    """Yield every setting, sections after the fields before them, in the order in which they are defined.

    Args:
        record: Kind of the whole, or of one section.
        prefix: Section's name with a dot; empty for the whole.
        section: The section's defaults if they differ from those of its kind.
    """
    for name, field in record.model_fields.items():
        default = getattr(section, name) if section is not None else field.get_default(call_default_factory=True)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Record):
            yield from settings(field.annotation, f"{prefix}{name}.", default if isinstance(default, Record) else None)
        else:
            text = "" if default is PydanticUndefined else json.dumps(default, default=_fields)
            yield Setting(prefix + name, _kind(field), text, field.description or "")


def markdown() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "This page lists everything that project.json holds. `alfamix init --set NAME=VALUE` sets a value for a new",
        "project. The file may be edited at any time; a round keeps the settings with which it was planned. `alfamix",
        "settings --markdown` generates this page; a test compares it.",
        "",
        *sections(Project),
    ]
    return "\n".join(lines) + "\n"


def sections(record: type[Record]) -> list[str]:
    """Return a record's settings in Markdown: a table of its own fields, then one under a heading for each section.

    A section is introduced by its field's description, or else by the docstring of its kind.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings(record):
        section, dot, _ = setting.name.partition(".")
        groups.setdefault(section if dot else "", []).append(setting)
    lines = _table(groups.pop(""))
    for name, group in groups.items():
        field = record.model_fields[name]
        words = " ".join((field.description or inspect.getdoc(field.annotation) or "").split())
        lines += ["", f"## {name}", "", textwrap.fill(words, width=120, break_on_hyphens=False), "", *_table(group)]
    return lines


def _table(group: list[Setting]) -> list[str]:
    lines = ["| name | takes | default | meaning |", "|---|---|---|---|"]
    for setting in group:
        default = f"`{setting.default}`" if setting.default else "required"
        lines.append(f"| `{setting.name}` | {setting.kind} | {default} | {setting.meaning} |")
    return lines


def _fields(value: Record) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_defaults=True)


def _kind(field: FieldInfo) -> str:
    bounds = []
    for rule in field.metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if hasattr(rule, attribute):
                bounds.append(f"{sign} {getattr(rule, attribute)}")
    return ", ".join([_words(field.annotation), *bounds])


def _words(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return _either(str(choice) for choice in get_args(annotation))
    if origin is tuple:
        return f"list of {_words(get_args(annotation)[0])}"
    if origin is dict:
        return f"names with {_words(get_args(annotation)[1])}"
    if annotation is type(None):
        return "null"
    if origin in (Union, types.UnionType):
        return _either(_words(choice) for choice in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return _words(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return " ".join(annotation.model_fields)
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation]


def _either(choices: Iterable[str]) -> str:
    *before, last = choices
    return f"{', '.join(before)} or {last}" if before else last
