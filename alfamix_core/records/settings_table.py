"""All settings of project.json as a table: name, type, default, meaning."""

import json
import types
from collections.abc import Iterator
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
        name: as ``--set`` takes it, such as ``training.max_epochs``.
        kind: what it takes, in words.
        default: as JSON; empty when it must be given.
        meaning: what it does, with its unit.
    """

    name: str
    kind: str
    default: str
    meaning: str


def settings(record: type[Record] = Project, prefix: str = "", section: Record | None = None) -> Iterator[Setting]:
    """Yield every setting, sections after the fields before them, in the order in which they are defined.

    Args:
        record: the whole, or a section of it.
        prefix: of the section's names.
        section: its defaults, where they differ from those of its kind.
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
        "Everything in project.json. Made by `alfamix settings --markdown`; a test compares.",
        "A project is made with `alfamix init --set NAME=VALUE`, and its file may be edited at any time.",
        "",
        *table(Project),
    ]
    return "\n".join(lines) + "\n"


def table(record: type[Record]) -> list[str]:
    """Return the lines of a Markdown table of a record's settings."""
    lines = ["| name | takes | default | meaning |", "|---|---|---|---|"]
    for setting in settings(record):
        default = f"`{setting.default}`" if setting.default else "must be given"
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
        return " or ".join(str(choice) for choice in get_args(annotation))
    if origin is tuple:
        return f"list of {_words(get_args(annotation)[0])}"
    if origin is dict:
        return f"names with {_words(get_args(annotation)[1])}"
    if annotation is type(None):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return _words(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return " ".join(annotation.model_fields)
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation]
