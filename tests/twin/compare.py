"""Compare the project's own answer with the twin's, sample by sample."""

import re
from datetime import datetime

from alfamix_core.project.ledger.ledger import Ledger
from tests.twin.formats import Event, Line, Settings
from tests.twin.history import History, SampleState

LABELLED = ("train", "val", "test", "audit")


def disagreements(ledger: Ledger, history: History, now: datetime, settings: Settings) -> list[str]:
    """Return a line for each thing that the ledger and the twin see otherwise.

    Args:
        ledger: the project's ledger, opened for the moment ``now``.
        history: all that happened.
        now: the moment at which questions are judged to have expired.
        settings: those of the project.
    """
    twin = history.state(now, settings)
    rows = ledger.query("select sample_id, state, label, label_round, split from states").to_pylist()
    states = {row.pop("sample_id"): tuple(row.values()) for row in rows}
    assert len(states) == len(rows), "a sample has one state"
    expected = {name: _row(sample) for name, sample in twin.samples.items() if sample.state != "withdrawn"}
    asked = {question.sample_id: (question.round, question.rank) for question in ledger.open_queries()}
    withdrawn = {name for name, sample in twin.samples.items() if sample.state == "withdrawn"}
    queries = {name: sample.question for name, sample in twin.samples.items() if sample.question is not None}
    aside = _set_aside(ledger)
    pairs = {
        "open queries": (asked, queries),
        "counts": (ledger.counts().model_dump(), twin.counts),
        "pool": (sorted(name for name, row in states.items() if row[0] == "pool"), twin.pool),
        "reserve": ([name for name, _ in ledger.reserve(settings.seed, 1_000_000)], twin.reserve),
        "withdrawn": (set(ledger.withdrawn()) & set(twin.samples), withdrawn),
        "set aside": ({key: line for key, line in aside.items() if key not in twin.gone}, twin.set_aside),
        "lines set aside": ({(key, line) for key, line, _ in ledger.set_aside() if line}, twin.lines_set_aside),
        "event ids with two contents": (ledger.repeated_event_ids(), sorted(twin.findings)[:100]),
        "events": (_events(ledger), twin.events),
        "sample rows": (_lines(ledger), twin.lines),
        "answers about unknown samples": (ledger.unknown_answers(), twin.unknown),
        "rounds with an open query": (set(ledger.open_rounds()), twin.open_rounds),
    }
    lines = [
        f"{name}: the ledger has {states.get(name)}, the twin {expected.get(name)}"
        for name in sorted({*states, *expected})
        if states.get(name) != expected.get(name)
    ]
    return lines + [
        f"{what}: the ledger has {has}, the twin {twins}" for what, (has, twins) in pairs.items() if has != twins
    ]


def _row(sample: SampleState) -> tuple[object, ...]:
    """Return a sample as the view ``states`` has it."""
    state = "labelled" if sample.state in LABELLED else sample.state
    if (state, sample.split) == ("held_out", "audit"):
        state = "reserve"
    return state, sample.label, sample.round, sample.split


def _events(ledger: Ledger) -> dict[Event, datetime]:
    columns = ", ".join(Event._fields)
    rows = ledger.query(f"select {columns}, loaded_at from events").to_pylist()
    loaded = {Event(*list(row.values())[:-1]): row["loaded_at"] for row in rows}
    assert len(loaded) == len(rows), "an event is there once"
    return loaded


def _lines(ledger: Ledger) -> dict[str, Line]:
    rows = ledger.query('select sample_id, uri, label, split, "group" from samples').to_pylist()
    samples = {row["sample_id"]: Line(*row.values()) for row in rows}
    assert len(samples) == len(rows), "a sample is there once"
    return samples


def _set_aside(ledger: Ledger) -> dict[str, int]:
    """Return the line that condemns each file that is set aside as a whole."""
    lines = {}
    for key, line, reason in ledger.set_aside():
        if not line:
            named = re.search(r" line (\d+)", reason.removeprefix(key))
            lines[key] = int(named[1]) if named else 0
    return lines
