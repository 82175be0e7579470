"""Time and memory of a project with a million samples.

    python -m benchmarks.project [--quick | --lines 10000000]

Registers a manifest, then 1,000 new lines, loads them and plans a round, registers 1,000 more, writes the snapshot,
loads answers, and looks for work without any; each in its own process, so that the peak memory is that step's. --quick
has 50,000 lines in place of 1,000,000.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

LINES, QUICK, NEW = 1_000_000, 50_000, 1_000


def _register(project: str, source: str) -> None:
    from alfamix_core.project.inbox.deliveries import register
    from alfamix_core.storage import open_store

    register(open_store(project), source)


def _plan(project: str) -> None:
    from alfamix_core.records.lock import Holder
    from components.ingest import stage

    stage.run(project, Holder(run_id="benchmark"))


def _snapshot(project: str, folder: str) -> None:
    from alfamix_core.project import rounds
    from alfamix_core.storage import open_store
    from components.snapshot import stage

    key = rounds.read(open_store(project), 1)[0].key
    stage.run(project, key, f"{folder}/snapshot", f"{folder}/champion")


def _load(project: str) -> None:
    """Load what the inbox holds, as ingest does, and count the samples."""
    from datetime import UTC, datetime, timedelta

    from alfamix_core.project import lock, planning, rounds
    from alfamix_core.records.lock import Holder
    from alfamix_core.storage import open_store

    store, now = open_store(project), datetime.now(UTC)
    lock.acquire(store, Holder(run_id="benchmark"), now, now + timedelta(hours=1))
    with planning.loading(store, rounds.read_settings(store), "benchmark", now) as ledger:
        ledger.counts()
    lock.release(store, "benchmark")


def _idle(project: str) -> None:
    """Look for work without any, as a schedule does most of the time."""
    from alfamix_core.project import lock, rounds
    from alfamix_core.records.lock import Holder
    from alfamix_core.storage import open_store
    from components.ingest import stage

    store = open_store(project)
    newest = rounds.newest(store)
    if newest is not None and newest[0].is_unfinished:
        rounds.swap(store, *newest, state="exported")
        lock.release(store, "benchmark")
        stage.run(project, Holder(run_id="benchmark"))  # takes note of the round
        _IDLE[:] = [time.perf_counter(), time.process_time()]
    stage.run(project, Holder(run_id="benchmark"))


_IDLE: list[float] = []


def _nothing() -> None:
    """Import what the other steps import, to show its share of their numbers."""
    import components.ingest.stage
    import components.snapshot.stage  # noqa: F401


_STEPS = {
    "nothing": _nothing,
    "register": _register,
    "plan": _plan,
    "snapshot": _snapshot,
    "load": _load,
    "idle": _idle,
}


def _step(name: str, *arguments: str) -> dict[str, float]:
    """Run a step in a fresh process; return its seconds by clock and CPU, imports apart, and its peak memory in MB."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.project", "--step", name, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return figures


def _run_step(name: str, arguments: list[str]) -> None:
    from alfamix_core.telemetry.measures import peak_memory_bytes

    _nothing()
    start, busy = time.perf_counter(), time.process_time()
    _STEPS[name](*arguments)  # type: ignore[operator]
    start, busy = _IDLE or (start, busy)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(json.dumps({"seconds": seconds, "cpu": busy, "megabytes": peak_memory_bytes() / 1e6}))


def _manifest(path: Path, first: int, count: int) -> str:
    with path.open("w") as stream:
        for number in range(first, first + count):
            line = {
                "uri": f"s3://pictures/camera-{number % 50:02d}/2026/frame-{number:09d}.png",
                "group": f"day-{number % 365}",
            }
            if number % 100 == 0:
                line["label"] = "cat" if number % 200 else "dog"
            stream.write(json.dumps(line) + "\n")
    return path.as_uri()


def _answers(project: str, known: Path, first: int, batches: int) -> None:
    """Add batches of 1,000 answers each about the samples of a manifest."""
    import hashlib

    folder = Path(project.removeprefix("file://")) / "labels"
    folder.mkdir(exist_ok=True)
    with known.open() as stream:
        lines = list(islice(stream, first * NEW, (first + batches) * NEW))
    for batch in range(batches):
        with (folder / f"{first + batch:06d}.jsonl").open("w") as stream:
            for line in lines[batch * NEW : (batch + 1) * NEW]:
                key = hashlib.sha256(json.loads(line)["uri"].encode()).hexdigest()[:16]
                event = {"event_id": f"e{key}", "sample_id": key, "kind": "label", "label": "cat", "annotator": "ann"}
                stream.write(json.dumps(event | {"time": "2026-03-01T12:00:00Z"}) + "\n")


def main() -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--step", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.step:
        _run_step(options.step[0], options.step[1:])
        return
    from alfamix_core.project.initialise import initialise
    from alfamix_core.records.project import Project
    from alfamix_core.storage import open_store

    lines = QUICK if options.quick else options.lines
    with tempfile.TemporaryDirectory(prefix="alfamix-benchmark-") as text:
        folder = Path(text)
        project = (folder / "project").as_uri()
        settings = Project(name="million", classes=("cat", "dog"), data_prefixes=("s3://pictures",))
        initialise(open_store(project), settings)
        many = _manifest(folder / "many.jsonl", 0, lines)
        few = _manifest(folder / "few.jsonl", lines, NEW)
        later = _manifest(folder / "later.jsonl", lines + NEW, NEW)
        steps = [
            ("imports alone", ["nothing"]),
            (f"register {lines:,} lines", ["register", project, many]),
            (f"register {NEW:,} more", ["register", project, few]),
            ("load them and plan the round", ["plan", project]),
            (f"register {NEW:,} more, after the load", ["register", project, later]),
            (f"snapshot of {lines + NEW:,}", ["snapshot", project, str(folder / "out")]),
        ]
        answers = lines // 10 // NEW
        print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        for title, arguments in steps:
            _show(title, arguments)
        _answers(project, folder / "many.jsonl", 0, answers)
        _show(f"{answers * NEW:,} answers, new", ["load", project])
        _answers(project, folder / "many.jsonl", answers, 1)
        _show(f"{answers * NEW:,} answers, and {NEW:,} new", ["load", project])
        _show("an idle ingest", ["idle", project])


def _show(title: str, arguments: list[str]) -> None:
    figures = _step(*arguments)
    seconds, cpu, megabytes = (figures[name] for name in ("seconds", "cpu", "megabytes"))
    print(f"{title:<36} {seconds:8.2f} s {cpu:8.2f} s of CPU {megabytes:8.0f} MB", flush=True)


if __name__ == "__main__":
    main()
