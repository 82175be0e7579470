"""The page of settings: own fields first, then one table for each section, under the section's own words."""

from pydantic import Field

from alfamix_core.records.project import Project
from alfamix_core.records.record import Record
from alfamix_core.records.settings_table import sections, settings


class Oven(Record):
    """How hot the oven gets."""

    degrees: int = Field(180, ge=50, description="temperature, in degrees Celsius")


class Kitchen(Record):
    """A kitchen."""

    large: Oven = Field(Oven(degrees=220), description="The oven for bread.")
    name: str = Field(description="name of the kitchen")
    small: Oven = Oven()


def test_a_page_by_hand():
    """A section's words are its field's description, or else its kind's; its defaults are those of the very section."""
    head = ["| name | takes | default | meaning |", "|---|---|---|---|"]
    assert sections(Kitchen) == [
        *head,
        "| `name` | text | required | name of the kitchen |",
        *("", "## large", "", "The oven for bread.", ""),
        *head,
        "| `large.degrees` | whole number, ≥ 50 | `220` | temperature, in degrees Celsius |",
        *("", "## small", "", "How hot the oven gets.", ""),
        *head,
        "| `small.degrees` | whole number, ≥ 50 | `180` | temperature, in degrees Celsius |",
    ]


def test_every_setting_of_a_project_is_in_the_page_once():
    rows = [line.split("`")[1] for line in sections(Project) if line.startswith("| `")]
    assert sorted(rows) == sorted(setting.name for setting in settings())
    assert len(rows) == len(set(rows)) > 50
