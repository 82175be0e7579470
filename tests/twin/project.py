"""The history of a real project, for its twin: which contents its loads read, what its rounds froze and committed.

The project says which bytes it read and when; what these bytes mean is for the twin alone.
"""

import json
from datetime import datetime
from itertools import groupby
from typing import Protocol

from alfamix_core.project import objects, rounds
from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.records.round import Round
from alfamix_core.storage import Store
from tests.twin.formats import Settings, kind_of
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
    files: dict[str, bytes] = {}
    for load, rows in groupby(_readings(ledger), key=lambda row: row["load"]):
        while waiting and waiting[0].versions.get("inbox", -1) < load:
            wrong += _end(history, store, waiting.pop(0), settings, judged)
        read = list(rows)
        files |= {row["key"]: inbox.contents[row["sha256"]] for row in read if kind_of(row["key"])}
        history.load(read[0]["loaded_at"], files, settings)
    for record in waiting:
        wrong += _end(history, store, record, settings, judged)
    history.load(now, inbox.files(), settings)
    return history, wrong


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
            f"round {record.number} asked about {each['sample_id']}, which is {state.samples.get(each['sample_id'])}"
            for each in asked
            if each["sample_id"] not in (state.reserve if each.get("audit") else state.pool)
        ]
        if len({each["sample_id"] for each in asked}) < len(asked):
            wrong.append(f"round {record.number} asked about a sample twice")
        if not wrong:
            judged.add(record.number)
    unreadable = objects.read(store, record, "quarantine").splitlines() if "quarantine" in record.objects else []
    history.commit(
        record.number,
        record.planned_at,
        [{"sample_id": each["sample_id"], "rank": each["rank"], "audit": each.get("audit", False)} for each in asked],
        [json.loads(line)["sample_id"] for line in unreadable],
    )
    return wrong
