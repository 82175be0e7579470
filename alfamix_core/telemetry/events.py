"""Events: JSON lines on standard output, for the command that watches a run.

A stage's standard output is a pipe without a terminal, mixed with the SDK's own lines; an event is a line that begins
with ``{"alfamix": "<kind>"``.

    started   stage, shard                     a stage begins
    progress  stage, shard, done, total, unit  and how far it is
    continued stage, shard, epoch              a training goes on after that epoch of an earlier attempt
    finished  stage, shard, seconds            it is done
    failed    stage, shard, status, line       it stopped on a deliberate error
    round     number, state, text              what ``ingest`` decided: planned, resumed, idle or refused
    trigger   time, project, round, state, text  of `alfamix trigger`: watching, waiting, idle, started, failed,
                                               unlocked, malformed, error or stopped; round 0 where there is none
"""

import json
import sys
import time

_PREFIX = '{"alfamix": '


def emit(kind: str, **fields: object) -> None:
    """Print one event."""
    sys.stdout.write(json.dumps({"alfamix": kind, **fields}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


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
