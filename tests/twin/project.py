"""The history of a real project, for its twin: which contents its loads read, what its rounds froze and committed.

The project says which bytes it read and when; what these bytes mean is for the twin alone.
"""

import json
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Protocol

from alfamix_core.project import objects, rounds
from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.records.round import Round
from alfamix_core.storage import Store
from tests.twin.formats import BadLineError, Event, Settings, kind_of, read
from tests.twin.history import History


class Contents(Protocol):
    """Everything that a file of the inbox ever held."""

    contents: dict[str, bytes]

    def files(self) -> dict[str, bytes]: ...


def history_of(
    ledger: Ledger, store: Store, inbox: Contents, settings: Settings, now: datetime, judged: set[int]
) -> tuple[History, list[str]]:
    """Return what happened to a project, as its tables and records tell it.

    Args:
        ledger: the project's ledger at the moment ``now``.
        store: the project.
        inbox: its files, and all that they ever held.
        settings: those of the project.
        now: the current moment.
        judged: rounds whose questions were found right before; gets those that are found right now.

    Returns:
        The history, and a line for each question that a round asked although the twin knows better.

    Raises:
        KeyError: a content that was read was never seen; a file was changed at this moment.
    """
    history = History(store.uri)
    wrong: list[str] = []
    waiting = list(rounds.read_all(store))
    killed = _killed_loads(ledger)
    files: dict[str, bytes] = {}
    for load, rows in groupby(_readings(ledger), key=lambda row: row["load"]):
        while waiting and waiting[0].versions.get("inbox", -1) < load:
            wrong += _end(history, store, waiting.pop(0), settings, judged)
        readings = list(rows)
        fresh = {row["key"]: inbox.contents[row["sha256"]] for row in readings if kind_of(row["key"])}
        files |= fresh
        _resume(history, killed, fresh, settings)
        history.load(readings[0]["loaded_at"], files, settings)
    for record in waiting:
        wrong += _end(history, store, record, settings, judged)
    present = inbox.files()
    _resume(history, killed, present, settings)
    _resume(
        history,
        killed,
        {f"labels/{number}.jsonl": data for number, data in enumerate(inbox.contents.values())},
        settings,
    )
    wrong += [f"{event} is in no file that there ever was" for event in killed]
    history.load(now, present, settings)
    return history, wrong


def _killed_loads(ledger: Ledger) -> dict[Event, datetime]:
    """Return the events of loads that were killed before they had written what they read, and when these were."""
    columns = ", ".join(Event._fields)
    rows = ledger.query(
        f"""select {columns}, loaded_at from events_table
        where loaded_at not in (select loaded_at from inbox_table)"""
    ).to_pylist()
    return {Event(*list(row.values())[:-1]): row["loaded_at"] for row in rows}


def _resume(history: History, killed: dict[Event, datetime], files: dict[str, bytes], settings: Settings) -> None:
    """Note the killed loads of events that these files hold; a later load found them in the table already."""
    if not killed:
        return
    held = set()
    for key, data in files.items():
        if kind_of(key) == "events":
            with suppress(BadLineError):
                held |= {event for _, event in read(key, data, history.project_uri, settings)}
    for event in held & killed.keys():
        fields = {**event._asdict(), "time": event.time.isoformat()}
        line = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
        history.load(killed.pop(event), {"labels/killed.jsonl": line}, settings)


def _readings(ledger: Ledger) -> list[dict[str, object]]:
    """Return what loads read, in their order; a load that was killed left rows in other tables alone."""
    return ledger.query(
        "select key, sha256, load, loaded_at from inbox_table where line = 0 order by load, key"
    ).to_pylist()


def _end(history: History, store: Store, record: Round, settings: Settings, judged: set[int]) -> list[str]:
    """Note that a round was planned, and how it ended; return what it should not have asked."""
    history.plan(record.number)
    if record.state == "abandoned":
        history.abandon(record.number)
    if not record.is_committed:
        return []
    asked = [json.loads(line) for line in objects.read(store, record, "questions").splitlines()]
    wrong = []
    if record.number not in judged:
        state = history.state(record.planned_at, settings)
        wrong = [
            f"round {record.number} asked about {name}, which is {state.samples.get(name)}"
            for name, question in ((question["sample_id"], question) for question in asked)
            if name not in (state.reserve if question.get("audit") else state.pool)
        ]
        if len({question["sample_id"] for question in asked}) < len(asked):
            wrong.append(f"round {record.number} asked about a sample twice")
        if not wrong:
            judged.add(record.number)
    unreadable = objects.read(store, record, "quarantine").splitlines() if "quarantine" in record.objects else []
    history.commit(
        record.number,
        record.planned_at,
        [
            {"sample_id": question["sample_id"], "rank": question["rank"], "audit": question.get("audit", False)}
            for question in asked
        ],
        [json.loads(line)["sample_id"] for line in unreadable],
    )
    return wrong
