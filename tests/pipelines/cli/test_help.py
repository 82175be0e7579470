"""Every command says what it is for, in words that stand on their own, and docs/cli.md says the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from alfamix_core import __version__
from pipelines.cli import app
from pipelines.cli.page import page
from tests.test_descriptions import faults

DAILY = {"init", "drop", "round", "answer", "status", "report", "queue", "labels"}
PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
TRANSLATED = re.compile(r"\b(anew|at once|for ever|so many|whoever|mend|in vain|goes? on|said|told|theirs)\b")


def commands():
    def below(command, path):
        for name, each in sorted(getattr(command, "commands", {}).items()):
            yield (*path, name), each
            yield from below(each, (*path, name))

    return dict(below(typer.main.get_command(app), ()))


def shortcomings(text):
    """Return what keeps a text of the help from standing on its own: it ends with a full stop, unlike a setting's."""
    return [
        *faults(text),
        *(["does not begin with a capital"] if not text[:1].isupper() else []),
        *(["does not end with a full stop"] if not text.endswith(".") else []),
        *(["reads as translated"] if TRANSLATED.search(text) else []),
    ]


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_argument_and_option_has_a_description_that_stands_on_its_own(alfamix, path):
    for flag in ("--help", "-h"):
        result = alfamix(*path, flag)
        assert result.exit_code == 0
        assert f"alfamix {' '.join(path)}" in result.stdout
    command = commands()[path]
    texts = {"": command.help} | {each.name: each.help for each in command.params if each.name != "help"}
    assert [(name, text, fault) for name, text in texts.items() for fault in shortcomings(text or "")] == []


@pytest.mark.parametrize("text", ["", "Of a push.", "name of the log.", "Starts the run anew.", "Seconds of a wait"])
def test_a_description_that_does_not_stand_on_its_own_is_found(text):
    assert shortcomings(text)


def test_the_page_of_the_command_is_what_the_command_says():
    assert PAGE.read_text("utf-8") == page(), "make docs writes docs/cli.md"


def test_the_page_has_a_section_for_every_command_and_a_row_for_every_parameter():
    sections = dict(re.findall(r"^## `alfamix ([^`]+)`\n(.*?)(?=^## |\Z)", page(), re.MULTILINE | re.DOTALL))
    leaves = {" ".join(path): each for path, each in commands().items() if not hasattr(each, "commands")}
    assert sections.keys() == leaves.keys()
    for name, command in leaves.items():
        rows = [each for each in command.params if each.name != "help"]
        assert sections[name].count("\n| ") == len(rows) + bool(rows), name


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


def test_help_loads_nothing_that_only_a_command_needs():
    """Each of these costs a newcomer's first `alfamix --help` 0.05 to 2 s."""
    heavy = (
        "torch kfp deltalake duckdb boto3 pydantic numpy pyarrow PIL docker croniter prometheus_client jinja2".split()
    )
    code = f"import sys, pipelines.cli; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
