"""How commands print and end: text for a person, JSON for a program, one line and an exit status for an error."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, NoReturn, ParamSpec

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from alfamix_core.errors import AlfamixError
from alfamix_core.storage import shown

P = ParamSpec("P")


class _Out(Console):
    """A console that prints foreign names with escapes: none of them breaks a line or commands the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        texts = ("\n".join(map(shown, item.split("\n"))) if isinstance(item, str) else item for item in objects)
        super().print(*texts, **options)


out = _Out(highlight=False, soft_wrap=True, markup=False)  # names of files and classes may hold brackets


@dataclass(frozen=True)
class Shown:
    """What a command shows at its end.

    Attributes:
        value: Value for a program, which --json prints.
        lines: Lines and tables for a person, which are printed without --json.
        status: Exit status.
    """

    value: object
    lines: Sequence[RenderableType]
    status: int = 0


def ending(command: Callable[P, int | Shown]) -> Callable[P, NoReturn]:
    """End the process with the status of a command, after printing what it shows or a deliberate error in one line."""

    @functools.wraps(command)
    def ended(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        try:
            shown = command(*args, **kwargs)
            status = shown if isinstance(shown, int) else _show(shown, bool(kwargs.get("as_json")))
        except AlfamixError as error:
            print_error(str(error))
            status = error.exit_status
        raise typer.Exit(status)

    return ended


def _show(shown: Shown, as_json: bool) -> int:
    if as_json:
        typer.echo(json.dumps(shown.value, indent=2, ensure_ascii=False, default=_plain))
    else:
        for line in shown.lines:
            out.print(line)
    return shown.status


def _plain(value: object) -> object:
    from alfamix_core.records.record import Record

    if isinstance(value, Record):
        return value.model_dump(mode="json")
    return value.__dict__ if is_dataclass(value) else str(value)


def print_error(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(f"alfamix: {shown(' '.join(text.split()))}", err=True)


def columns(title: str, **right: bool) -> Table:
    """Return a table with these columns; True aligns a column right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name, aligned in right.items():
        table.add_column(name, justify="right" if aligned else "left", header_style="dim")
    return table
