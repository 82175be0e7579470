"""The page docs/cli.md, from the command itself: `python -m pipelines.cli.page` prints it."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from alfamix_core.errors import one_line
from pipelines.cli import DAILY, OPERATIONS, app

_TOP = """# The command

Generated from the command by `make docs`. `alfamix COMMAND --help` prints the same in a terminal. A deliberate error is
one line on standard error. Exit status: 0 for success; 1 for a bug of ours, or findings of `doctor`; 2 for wrong
input; 3 for storage or network, where trying again helps.
"""


def page() -> str:
    """Return the page."""
    root = typer.main.get_command(app)
    commands = list(_commands(root, ()))
    parts = [_TOP]
    for panel in (DAILY, OPERATIONS):
        parts.append(
            f"| {panel.lower()} | what it does |\n|---|---|\n"
            + "".join(
                f"| [`{name}`](#alfamix-{name.replace(' ', '-')}) | {_summary(command)} |\n"
                for name, shown_in, command in commands
                if shown_in == panel
            )
        )
    parts += [_section(name, command) for name, _, command in commands]
    return "\n".join(parts)


def _commands(command: Any, path: tuple[str, ...], panel: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield name, panel and command of every command that does something, in the order of the help."""
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), panel, command
        return
    for name, child in below.items():
        yield from _commands(child, (*path, name), panel or str(child.rich_help_panel))


def _summary(command: Any) -> str:
    return _cell(inspect.cleandoc(command.help).partition("\n\n")[0])


def _section(name: str, command: Any) -> str:
    """Return the part of one command: its help, its usage, its arguments and options."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.name != "help"
    ]
    usage = " ".join(
        ["alfamix", name, *(["[OPTIONS]"] if options else []), *(_metavar(parameter) for parameter in arguments)]
    )
    lines = [f"## `alfamix {name}`", "", inspect.cleandoc(command.help), "", "```console", f"$ {usage}", "```"]
    if arguments or options:
        lines += ["", "| argument or option | meaning | default |", "|---|---|---|"]
        lines += [f"| `{_metavar(parameter)}` | {_cell(parameter.help)} | required |" for parameter in arguments]
        lines += [
            f"| {_spelling(parameter)} | {_cell(parameter.help)} | {_default(parameter)} |" for parameter in options
        ]
    return "\n".join(lines) + "\n"


def _metavar(parameter: Any) -> str:
    return f"{parameter.metavar or parameter.name.upper()}{'...' if parameter.nargs == -1 else ''}"


def _spelling(option: Any) -> str:
    value = "" if option.is_flag else f" {_metavar(option)}"
    return ", ".join(f"`{name}{value}`" for name in option.opts)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    variable = f"`${option.envvar}`" if option.envvar else ""
    value = "" if option.is_flag or option.default in (None, "") else f"`{option.default}`"
    return " or ".join(part for part in (variable, value) if part)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
