"""Start a local run as a child, and show its progress.

The child writes to a log file of its own, so that it neither blocks nor dies with this process; the display is drawn
from the events in that file (``telemetry.events``).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from alfamix_core.telemetry.events import SWITCH, form, parse, to_human
from components.stages import STAGES
from pipelines.engines.engine import StageFailure

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Task:
    """One stage on one shard, from its events."""

    state: str = "running"
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    unit: str = ""

    def line(self, stage: str, shard: str) -> str:
        """Return how the task ended, as a line."""
        name = f"{stage} {shard}" if shard else stage
        extent = f"{self.total:,} {self.unit}" if self.total else ""
        return f"  {name:<10} {self.state:<7} {self.seconds:6.1f} s  {extent}".rstrip()


@dataclass
class Run:
    """The state of a run, from its events until now.

    Attributes:
        tasks: Tasks by stage, then by shard.
        number: Number of the round, 0 while it is unknown.
        state: Planned, resumed, idle or refused.
        text: Reason for the state.
        outcome: Outcome of the run as finish names it.
        failures: Stages that stopped on a deliberate error, the first one first.
    """

    tasks: dict[str, dict[str, _Task]] = field(default_factory=dict)
    number: int = 0
    state: str = ""
    text: str = ""
    outcome: str = ""
    failures: list[StageFailure] = field(default_factory=list)

    def take(self, event: dict[str, object]) -> str:
        """Take in one event; return a line if it ends a task, else ''.

        An event that lacks a field, or has one of another kind, is ignored: a log may hold half a line of a stage that
        was killed, or an event of another version.
        """
        try:
            return self._take(event)
        except (KeyError, ValueError, OverflowError):
            return ""

    def _take(self, event: dict[str, object]) -> str:
        kind = event["alfamix"]
        if kind == "round":
            number, state, text = int(str(event["number"])), str(event["state"]), str(event["text"])
            self.number, self.state, self.text = number, state, text
        elif kind == "outcome":
            self.outcome = str(event["state"])
        elif kind in ("started", "progress", "finished", "failed"):
            stage, shard = str(event["stage"]), str(event["shard"])
            task = self.tasks.get(stage, {}).get(shard, _Task())
            ended = ""
            if kind == "progress":
                done, total, unit = int(str(event["done"])), int(str(event["total"])), str(event["unit"])
                task = replace(task, done=done, total=total, unit=unit)
            elif kind == "finished":
                task = replace(task, state="done", seconds=float(str(event["seconds"])))
                ended = task.line(stage, shard)
            elif kind == "failed":
                failure = StageFailure(stage, int(str(event["status"])), str(event["line"]))
                task = replace(task, state="failed")
                self.failures.append(failure)
                ended = task.line(stage, shard)
            self.tasks.setdefault(stage, {})[shard] = task
            return ended
        return ""

    def line(self, stage: str) -> tuple[str, str, str]:
        """Return a stage's state, its seconds and its progress, as text."""
        tasks = self.tasks.get(stage, {})
        if not tasks:
            return "", "", ""
        done = sum(task.state == "done" for task in tasks.values())
        failed = any(task.state == "failed" for task in tasks.values())
        state = "failed" if failed else "done" if done == len(tasks) else "running"
        seconds = sum(task.seconds for task in tasks.values())
        detail = f"{done} of {len(tasks)} shards" if len(tasks) > 1 else ""
        units = sum(task.done for task in tasks.values())
        total = sum(task.total for task in tasks.values())
        if total:
            unit = next(task.unit for task in tasks.values() if task.unit)
            detail += f"{', ' if detail else ''}{units:,} of {total:,} {unit}"
        return state, f"{seconds:.1f} s" if seconds else "", detail


def start(
    project_uri: str, work: Path, log: Path, force: bool, fresh: bool, network: str | None
) -> subprocess.Popen[bytes]:
    """Start one local run in a process group of its own.

    Args:
        project_uri: URI of the project.
        work: Folder that keeps outputs and cache from run to run.
        log: File for the run's output, see ``work_folder.new_log``.
        force: Start a round even if too little is new.
        fresh: Let an unfinished round compute everything again, whatever is cached.
        network: Docker's network for the containers, '' for Docker's own; None for stages as processes.
    """
    command = [sys.executable, "-m", "pipelines.engines.local", project_uri, str(work)]
    command += [*(["--force"] if force else []), *(["--fresh"] if fresh else [])]
    command += [] if network is None else ["--containers", "--network", network]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", SWITCH: "json"},
        )


def follow(child: subprocess.Popen[bytes], log: Path, console: Console, verbose: bool) -> Run:
    """Show the run until it ends; return its state.

    On a terminal one line per stage is redrawn; elsewhere a line is printed when a task ends. An interrupt ends the run
    and its stages.
    """
    run = Run()
    draw = console.is_terminal and not verbose
    try:
        with Live(console=console, refresh_per_second=8, transient=False) if draw else _Nothing() as live:
            for line in _lines(child, log):
                event = parse(line)
                if verbose:
                    shown = to_human(event) if event and form() == "human" else line
                    console.print(shown, markup=False, highlight=False)
                ended = run.take(event) if event else ""
                if draw:
                    live.update(_table(run))
                elif ended and not verbose:
                    console.print(ended, markup=False)
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    return run


class _Nothing:
    """Stand-in for a live display."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: Table) -> None:
        """Draw nothing."""


def _table(run: Run) -> Table:
    table = Table.grid(padding=(0, 2))
    marks = {"": "[dim]·[/]", "running": "[yellow]▸[/]", "done": "[green]✓[/]", "failed": "[red]✗[/]"}
    for stage in STAGES:
        state, seconds, detail = run.line(stage)
        table.add_row(marks[state], stage if state else f"[dim]{stage}[/]", seconds.rjust(9), detail)
    return table


def _lines(child: subprocess.Popen[bytes], log: Path) -> Iterator[str]:
    """Yield the lines of the log as they appear, until the child has ended and everything is read."""
    with log.open("rb") as stream:
        while True:
            ended = child.poll() is not None
            yield from _complete(stream, ended)
            if ended:
                return
            time.sleep(_POLL_SECONDS)


def _complete(stream: IO[bytes], ended: bool) -> Iterator[str]:
    while True:
        start = stream.tell()
        line = stream.readline()
        if not line or (not line.endswith(b"\n") and not ended):
            stream.seek(start)
            return
        yield line.decode(errors="replace").rstrip("\n")
