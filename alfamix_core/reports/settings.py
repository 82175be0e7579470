"""A project's settings as the rows of a table."""

import json
from dataclasses import dataclass

from alfamix_core.records.record import Record


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: Dotted name of the setting.
        value: Value, a text as it is and anything else as JSON.
        meaning: Description of the setting.
        default: Whether the value is the default.
    """

    name: str
    value: str
    meaning: str
    default: bool


def setting_rows(record: Record, prefix: str = "") -> list[Setting]:
    """Return every setting in the record's order; those of a nested record stand where it does."""
    rows = []
    for name, field in type(record).model_fields.items():
        value = getattr(record, name)
        if isinstance(value, Record):
            rows += setting_rows(value, f"{prefix}{name}.")
        else:
            rows.append(
                Setting(
                    name=prefix + name,
                    value=value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
                    meaning=field.description or "",
                    default=not field.is_required() and value == field.get_default(call_default_factory=True),
                )
            )
    return rows
