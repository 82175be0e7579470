"""Every command says what it is for."""

import pytest
import typer

from alfamix_core import __version__
from pipelines.cli import app

DAILY = {"init", "drop", "round", "answer", "status", "report", "queue", "labels"}


def commands():
    def below(command, path):
        for name, each in sorted(getattr(command, "commands", {}).items()):
            yield (*path, name), each
            yield from below(each, (*path, name))

    return dict(below(typer.main.get_command(app), ()))


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_and_every_option_has_help(alfamix, path):
    for flag in ("--help", "-h"):
        result = alfamix(*path, flag)
        assert result.exit_code == 0
        assert f"alfamix {' '.join(path)}" in result.stdout
    command = commands()[path]
    assert command.help
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, parameter.name


def test_help_is_in_two_panels_and_the_daily_one_comes_first(alfamix):
    said = alfamix("--help").stdout
    daily, operations = said.index("Daily"), said.index("Operations")
    assert daily < operations
    panels = {path[0]: command.rich_help_panel for path, command in commands().items() if len(path) == 1}
    assert {name for name, panel in panels.items() if panel == "Daily"} == DAILY
    assert {panel for name, panel in panels.items() if name not in DAILY} == {"Operations"}


def test_without_a_command_help_is_shown(alfamix):
    assert "Usage" in alfamix().output


def test_the_version_is_printed(alfamix):
    assert alfamix("version").stdout == f"{__version__}\n"
