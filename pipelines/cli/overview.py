"""`alfamix status` and `report`: where a project stands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import JsonOption, ProjectArgument, open_project
from pipelines.cli.printing import Shown, columns, out

if TYPE_CHECKING:
    from rich.table import Table

    from alfamix_core.records.round import Counts, Round

_SET_ASIDE = 5  # files set aside that status names


def status(project: ProjectArgument, as_json: JsonOption = False) -> Shown:
    """Show the rounds, the labels, the accuracy, the open questions and the champion."""
    from alfamix_core.project import budgets, champion, lock, rounds, stopping
    from alfamix_core.project.ledger.ledger import open_ledger

    store, now = open_project(project), datetime.now(UTC)
    settings = rounds.read_settings(store)
    with open_ledger(store, settings, now) as ledger:
        counts, set_aside = ledger.counts(), [aside.reason for aside in ledger.set_aside()]
    serving = champion.read(store).value
    current_lock = lock.read(store).value
    records = list(rounds.read_all(store))
    locked = lock.blocked_by(current_lock, "", now)
    advice = stopping.advise(settings, records, counts, budgets.spent(settings, records, counts, now))
    waiting = [text for record in records if (text := champion.waits(serving, record))]
    value = {
        "project": settings.name,
        "uri": store.uri,
        "counts": counts.model_dump(),
        "champion": serving.model_dump(mode="json"),
        "locked": locked,
        "waiting": waiting,
        "set_aside": set_aside,
        "advice": {
            "worth_it": advice.worth_it,
            "reasons": advice.reasons,
            "unknown": advice.unknown,
            "forecast": advice.forecast.__dict__ if advice.forecast else None,
        },
        "rounds": [record.model_dump(mode="json", exclude={"settings"}) for record in records],
    }
    more = len(set_aside) - _SET_ASIDE
    lines = [
        _in_words(counts),
        advice.text,
        advice.forecast.text if advice.forecast else "",
        *waiting,
        *(f"set aside: {line}" for line in set_aside[:_SET_ASIDE]),
        f"and {more} more are set aside; `alfamix doctor` lists them" if more > 0 else "",
        locked or lock.left_by(current_lock, now),
    ]
    table = _rounds(f"{settings.name} · {settings.strategy.name} · {store.uri}", records, serving.round)
    return Shown(value, [table, *filter(None, lines)])


def _rounds(title: str, records: "list[Round]", serving: int | None) -> "Table":
    """Return the table of the rounds."""
    left, right = False, True
    table = columns(
        title,
        round=right,
        state=left,
        labels=right,
        accuracy=right,
        queries=right,
        strategy=left,
        champion=left,
        planned=left,
    )
    for record in records:
        outcome = record.outcome
        table.add_row(
            str(record.number),
            record.state + (f": {record.reason}" if record.reason else ""),
            f"{record.counts.train:,}",
            f"{outcome.metrics['accuracy']:.4f}" if outcome and "accuracy" in outcome.metrics else "–",
            f"{outcome.queries:,}" if outcome else "–",
            outcome.strategy if outcome else "–",
            "serves" if serving == record.number else "",
            f"{record.planned_at:%Y-%m-%d %H:%M}",
        )
    return table


def _in_words(counts: "Counts") -> str:
    splits = ", ".join(f"{getattr(counts, name):,} {name}" for name in ("train", "val", "test", "audit"))
    return (
        f"{counts.samples:,} samples: {counts.pool:,} in the pool, {counts.queried:,} queried, {counts.labelled:,} "
        f"labelled ({splits}), {counts.skipped:,} skipped, {counts.disputed:,} disputed, "
        f"{counts.quarantined:,} quarantined"
        + (f", {counts.reserve:,} in the audit reserve" if counts.reserve else "")
        + (f", {counts.held_out:,} held out without a label" if counts.held_out else "")
        + (f", {counts.withdrawn:,} withdrawn" if counts.withdrawn else "")
    )


def report(
    project: ProjectArgument,
    number: Annotated[
        int, typer.Option("--round", min=0, help="Round whose page is written; 0 for the whole project's.")
    ] = 0,
    pages: Annotated[
        bool, typer.Option("--pages", help="Write the pages of its rounds beside the project's page, linked.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; by default NAME.html in this folder.", show_default=False),
    ] = None,
) -> int:
    """Write the page of the project, or of one round: one HTML file for a browser."""
    from alfamix_core.project import objects, rounds
    from alfamix_core.reports.gather import project_page

    store = open_project(project)
    settings = rounds.read_settings(store)
    path = to or Path(f"{settings.name}-round-{number:06d}.html" if number else f"{settings.name}.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    if number:
        path.write_bytes(objects.read(store, rounds.read(store, number).value, "report"))
    else:
        beside: dict[int, str] = {}
        for record in rounds.read_all(store) if pages else ():
            if "report" in record.objects and store.entry(objects.key_of(record, "report")) is not None:
                beside[record.number] = f"{path.stem}-round-{record.number:06d}.html"
                path.with_name(beside[record.number]).write_bytes(objects.read(store, record, "report"))
        path.write_bytes(project_page(store, datetime.now(UTC), pages=beside).encode())
    out.print(f"wrote {path.resolve()}")
    return 0
