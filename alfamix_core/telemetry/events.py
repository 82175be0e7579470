"""Events: the log of everything that runs, one line each on standard output, JSON or for people.

Every line has its kind, time, and where it belongs: project (its name; the uri while project.json cannot be read),
round (0 before there is one), stage and shard ('' where there is none). As JSON a line begins with
``{"alfamix": "<kind>"``, so that the command that watches a run finds it among the SDK's own lines:

    started                                    a stage begins
    progress  done, total, unit                and how far it is
    continued epoch                            a training goes on after that epoch of an earlier attempt
    warning   text                             something is amiss and does not stop it
    log       text                             what a library says that is not amiss
    finished  seconds, telemetry_seconds       it is done; how much of its time went into telemetry
    failed    status, line                     it stopped on a deliberate error
    round     number, state, text              what ``ingest`` decided: planned, resumed, idle or refused
    outcome   state, text                      how ``finish`` judged the run
    metrics   seconds, warning                 the project's metrics were published, or why not
    trigger   state, text                      of `alfamix trigger`: watching, waiting, idle, started, failed,
                                               unlocked, malformed, error or stopped

The environment variable ``ALFAMIX_LOG`` is the switch: json (the default) or human.
"""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from alfamix_core.errors import InputError
from alfamix_core.telemetry import overhead

SWITCH = "ALFAMIX_LOG"
_CONTEXT = "ALFAMIX_LOG_CONTEXT"
"""The environment has it, so that the processes that a stage starts say the same."""
_FORMS = ("json", "human")
_PREFIX = '{"alfamix": '
_NOWHERE: dict[str, object] = {"project": "", "round": 0, "stage": "", "shard": ""}
_MESSAGES = ("text", "line")


def form() -> str:
    """Return how lines are written: json or human.

    Raises:
        InputError: ALFAMIX_LOG is neither.
    """
    found = os.environ.get(SWITCH) or "json"
    if found not in _FORMS:
        raise InputError(f'the environment variable {SWITCH} must be json or human, not "{found}"')
    return found


@contextmanager
def context(**where: object) -> Iterator[None]:
    """Say on every line of the block where it belongs.

    Args:
        where: any of project, round, stage, shard; those not given stay as they are.
    """
    before = os.environ.get(_CONTEXT)
    os.environ[_CONTEXT] = json.dumps(_where() | where)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CONTEXT]
        else:
            os.environ[_CONTEXT] = before


class _LoggedEvents(logging.Handler):
    """Writes what libraries log as events, a traceback with it."""

    def emit(self, record: logging.LogRecord) -> None:
        emit("warning" if record.levelno >= logging.WARNING else "log", text=self.format(record))


@contextmanager
def libraries_as_events() -> Iterator[None]:
    """Write the warnings of libraries, and what they log as far as the root's level lets it, as events in the block."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        emit("warning", text=f"{category.__name__}: {message} ({filename}:{lineno})")

    root = logging.getLogger()
    before, ours = root.handlers[:], _LoggedEvents()
    ours.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    with warnings.catch_warnings():
        warnings.showwarning = show
        root.handlers[:] = [ours]
        try:
            yield
        finally:
            root.handlers[:] = before


def emit(kind: str, **fields: object) -> None:
    """Write one event; a field that says where it belongs goes before the context's."""
    with overhead.counted():
        now = f"{datetime.now(UTC):%FT%T.%f}"[:-3] + "Z"
        event = {"alfamix": kind, "time": now, **_where(), **fields}
        human = os.environ.get(SWITCH) == "human"
        sys.stdout.write((to_human(event) if human else json.dumps(event, ensure_ascii=False)) + "\n")
        sys.stdout.flush()


def to_human(event: Mapping[str, object]) -> str:
    """Return an event as one line for a person: time, place, kind, what it says."""
    number = event.get("round")
    place = [event.get("project"), f"round {number}" if number else "", event.get("stage"), event.get("shard")]
    rest = {name: value for name, value in event.items() if name not in {"alfamix", "time", *_NOWHERE, *_MESSAGES}}
    said = [f"{name}={value}" for name, value in rest.items() if value != ""]
    words = [event["time"], *place, event["alfamix"], *said, *(event.get(name) for name in _MESSAGES)]
    return " ".join(" ".join(str(word).split()) for word in words if word not in ("", None))


def parse(line: str) -> dict[str, object] | None:
    """Return the event on a line of output, or None where there is none."""
    start = line.find(_PREFIX)
    if start < 0:
        return None
    try:
        event = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _where() -> dict[str, object]:
    found: dict[str, object] = json.loads(os.environ.get(_CONTEXT, "{}"))
    return _NOWHERE | found


class Progress:
    """Emits how far a stage is: once a second at most, and at the end."""

    def __init__(self, stage: str, shard: str, unit: str) -> None:
        self._fields = {"stage": stage, "shard": shard, "unit": unit}
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` units are done."""
        now = time.monotonic()
        if done >= total or now - self._last >= 1:
            self._last = now
            emit("progress", **self._fields, done=done, total=total)
