"""Events: the log of everything that runs, one line per event on standard output, as JSON or for people.

Every line has a kind, a time and a context: project (its name, or its URI while project.json cannot be read), round
(0 before there is one), stage and shard ('' if there is none). A JSON line begins with ``{"alfamix": "<kind>"``, so
that the command that watches a run finds it among the SDK's own lines:

    started                                    the stage starts
    progress  done, total, unit                the progress of the stage
    continued epoch                            a training resumes after this epoch of an earlier attempt
    warning   text                             a problem that does not stop the stage
    log       text                             a message of a library that is no problem
    finished  seconds                          the stage is done
    failed    status, line                     the stage stopped on a deliberate error
    round     number, state, text              the decision of ``ingest``: planned, resumed, idle or refused
    outcome   state, text                      the verdict of ``finish`` on the run
    metrics   seconds, warning                 the project's metrics were published, or why they were not
    trigger   state, text                      the state of `alfamix trigger`: watching, waiting, idle, started, failed,
                                               unlocked, malformed, error or stopped

The environment variable ``ALFAMIX_LOG`` chooses the form: json (the default) or human.
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

from alfamix_core.errors import InputError, one_line

SWITCH = "ALFAMIX_LOG"
_CONTEXT = "ALFAMIX_LOG_CONTEXT"
"""The context is in the environment, so that the processes that a stage starts inherit it."""
_FORMS = ("json", "human")
_PREFIX = '{"alfamix": '
_NO_CONTEXT: dict[str, object] = {"project": "", "round": 0, "stage": "", "shard": ""}
_MESSAGES = ("text", "line")


def form() -> str:
    """Return the form of the lines: json or human.

    Raises:
        InputError: ALFAMIX_LOG is neither.
    """
    chosen = os.environ.get(SWITCH) or "json"
    if chosen not in _FORMS:
        raise InputError(f'the environment variable {SWITCH} must be json or human, not "{chosen}"')
    return chosen


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Give every event of the block a context.

    Args:
        fields: Any of project, round, stage and shard; the others keep their values.
    """
    before = os.environ.get(_CONTEXT)
    os.environ[_CONTEXT] = json.dumps(_current_context() | fields)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CONTEXT]
        else:
            os.environ[_CONTEXT] = before


class _LoggedEvents(logging.Handler):
    """Writes the log messages of libraries as events, including tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        emit("warning" if record.levelno >= logging.WARNING else "log", text=self.format(record))


@contextmanager
def libraries_as_events() -> Iterator[None]:
    """Write the warnings of libraries, and the log messages that the root logger lets through, as events."""

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
    before, handler = root.handlers[:], _LoggedEvents()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    with warnings.catch_warnings():
        warnings.showwarning = show
        root.handlers[:] = [handler]
        try:
            yield
        finally:
            root.handlers[:] = before


def emit(kind: str, **fields: object) -> None:
    """Write one event; its own fields take precedence over those of the context."""
    now = f"{datetime.now(UTC):%FT%T.%f}"[:-3] + "Z"
    event = {"alfamix": kind, "time": now, **_current_context(), **fields}
    human = os.environ.get(SWITCH) == "human"
    sys.stdout.write((to_human(event) if human else json.dumps(event, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def to_human(event: Mapping[str, object]) -> str:
    """Return an event as one line for people: time, context, kind, fields and message."""
    number = event.get("round")
    where = [event.get("project"), f"round {number}" if number else "", event.get("stage"), event.get("shard")]
    others = {name: value for name, value in event.items() if name not in {"alfamix", "time", *_NO_CONTEXT, *_MESSAGES}}
    pairs = [f"{name}={value}" for name, value in others.items() if value != ""]
    parts = [event["time"], *where, event["alfamix"], *pairs, *(event.get(name) for name in _MESSAGES)]
    return " ".join(one_line(part) for part in parts if part not in ("", None))


def parse(line: str) -> dict[str, object] | None:
    """Return the event on a line of output, or None if there is none."""
    start = line.find(_PREFIX)
    if start < 0:
        return None
    try:
        event = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _current_context() -> dict[str, object]:
    fields: dict[str, object] = json.loads(os.environ.get(_CONTEXT, "{}"))
    return _NO_CONTEXT | fields


class Progress:
    """Emits the progress of a stage, at most once a second and at the end."""

    def __init__(self, stage: str, shard: str, unit: str) -> None:
        self._fields = {"stage": stage, "shard": shard, "unit": unit}
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units are done."""
        now = time.monotonic()
        if done >= total or now - self._last >= 1:
            self._last = now
            emit("progress", **self._fields, done=done, total=total)
