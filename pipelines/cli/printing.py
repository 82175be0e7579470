"""How commands print and end: text for a person, JSON for a program, one line and an exit status for an error."""

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

from alfamix_core.errors import AlfamixError
from alfamix_core.storage import shown

if TYPE_CHECKING:
    from alfamix_core.records.record import Record

P = ParamSpec("P")


class _Out(Console):
    """A console that prints foreign names with escapes: none of them breaks a line or commands the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        texts = ("\n".join(map(shown, item.split("\n"))) if isinstance(item, str) else item for item in objects)
        super().print(*texts, **options)


out = _Out(highlight=False, soft_wrap=True, markup=False)  # names of files and classes may hold brackets


def ending(command: Callable[P, int]) -> Callable[P, NoReturn]:
    """End the process with the status that a command returns; print a deliberate error as one line."""

    @functools.wraps(command)
    def ended(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        try:
            status = command(*args, **kwargs)
        except AlfamixError as error:
            print_error(str(error))
            status = error.exit_status
        raise typer.Exit(status)

    return ended


def print_error(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(f"alfamix: {shown(' '.join(text.split()))}", err=True)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_record(record: "Record") -> None:
    """Print a record as JSON."""
    print_json(record.model_dump(mode="json"))


def columns(title: str, **right: bool) -> Table:
    """Return a table with these columns; True aligns a column right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name, aligned in right.items():
        table.add_column(name, justify="right" if aligned else "left", header_style="dim")
    return table
