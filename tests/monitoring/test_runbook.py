"""The runbook: a section for each alert, and nothing in it that does not exist."""

import re
import shlex

import pytest
import typer

from alfamix_core.records.project import Project
from pipelines.cli import app
from tests.monitoring.rules import MONITORING, RUNBOOK, alerts

TEXT = RUNBOOK.read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:`|\$ )(alfamix [a-z][^`\n]*)", TEXT)))


def sections() -> dict[str, str]:
    """Return the runbook's sections by their heading."""
    _, *parts = re.split(r"^## (.+)\n", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def check(line: str) -> None:
    """Parse a command as `alfamix` would, without running it; a number stands as N."""
    _, *words = shlex.split(line)
    command, name, context = typer.main.get_command(app), "alfamix", None
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, info_name=name, parent=context)
        name, command, words = command.resolve_command(context, words)
    command.make_context(name, ["3" if word == "N" else word for word in words], parent=context)


def test_there_is_one_section_per_alert_and_no_other():
    assert list(sections()) == [alert.name for alert in alerts()]


@pytest.mark.parametrize("name", sections())
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(name):
    text = sections()[name]
    assert re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE) == ["Means", "Look at", "Do"]
    assert "`alfamix " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_the_runbook_names_can_be_typed(command, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    check(command)


@pytest.mark.parametrize("command", ["alfamix rescue PROJECT", "alfamix round PROJECT --faster", "alfamix doctor"])
def test_a_command_that_cannot_be_typed_is_found(command):
    with pytest.raises(Exception, match=r"No such (command|option)|Missing (argument|parameter)"):
        check(command)


def test_every_setting_it_names_exists():
    known = set(Project.model_fields)
    for name, field in Project.model_fields.items():
        known |= {f"{name}.{each}" for each in getattr(field.annotation, "model_fields", ())}
    named = {name for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", TEXT) if not name.endswith(".json")}
    assert len(named) > 10
    assert named <= known


def test_every_dashboard_it_names_exists():
    titles = {path.stem for path in (MONITORING / "dashboards").glob("*.json")}
    named = {name.lower().replace(" ", "-") for name in re.findall(r"\*(Alfamix [a-z]+)\*", TEXT)}
    assert named
    assert named <= titles
