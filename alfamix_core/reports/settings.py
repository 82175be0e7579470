"""A project's settings as the rows of a table."""

import json
from dataclasses import dataclass

from alfamix_core.records import settings_table
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


def setting_rows(record: Record) -> list[Setting]:
    """Return every setting in the record's order; those of a nested record stand where it does."""
    defaults = {setting.name: setting.default for setting in settings_table.settings(type(record))}
    return [
        Setting(
            name=setting.name,
            value=_plain(json.loads(setting.default)),
            meaning=setting.meaning,
            default=setting.default == defaults[setting.name],
        )
        for setting in settings_table.settings(type(record), section=record)
    ]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
