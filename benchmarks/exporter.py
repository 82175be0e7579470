"""A project with many rounds of history: what a scrape of the exporter costs, and a reading.

    python -m benchmarks.exporter [--rounds 10000] [--queries 10]

makes such a project in a temporary folder (a round's record, its questions and their answers, again and again, then one
round begun as usual), serves it with `alfamix exporter`, and prints milliseconds of a scrape over HTTP, seconds of a
reading, and the largest memory of the process that serves and of the one that reads.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

from alfamix_core.project import layout, lock, objects, planning
from alfamix_core.project.initialise import initialise
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.round import Outcome, StageTotal, Totals
from alfamix_core.storage import Store, open_store

SCRAPES = 50
STAGES = ("snapshot", "train", "evaluate", "embed", "score", "select", "export")


def _history(store: Store, count: int, queries: int) -> None:
    initialise(store, Project(name="history", classes=("cat", "dog"), budget=queries))
    lines = (ManifestLine(uri=f"{n}.png", id=f"s{n:07d}").json_line() for n in range((count + 2) * queries))
    store.create(layout.manifest("a"), b"".join(lines))
    begun = datetime.now(UTC) - timedelta(hours=count + 2)
    first, _ = planning.begin(store, Holder(run_id="run"), begun)
    assert first is not None
    lock.release(store, "run")
    store.delete(layout.round_file(1))
    for number in range(1, count + 1):
        at = begun + timedelta(hours=number)
        ids = [f"s{n:07d}" for n in range((number - 1) * queries, number * queries)]
        asked = (
            Question(sample_id=key, uri=f"file:///{key}.png", round=number, rank=rank, asked_at=at)
            for rank, key in enumerate(ids)
        )
        written = {"questions": objects.write_lines(store, number, asked)}
        answers = (
            LabelEvent(
                event_id=f"e{key}",
                sample_id=key,
                kind="label",
                label="cat",
                annotator="ann",
                round=number,
                time=at + timedelta(minutes=30),
            )
            for key in ids
        )
        store.create(layout.labels(f"b{number:06d}"), b"".join(answer.json_line() for answer in answers))
        outcome = Outcome(
            queries=queries,
            strategy="alfamix",
            metrics={"accuracy": 0.9, "macro_f1": 0.9, "expected_calibration_error": 0.1, "samples": 500.0},
            stages={stage: StageTotal(seconds=1, rows=10) for stage in STAGES},
            totals=Totals(rounds={"alfamix": number}, queries=number * queries),
            exported_at=at,
        )
        fields = {"number": number, "planned_at": at, "state": "closed", "outcome": outcome, "objects": written}
        store.create(layout.round_file(number), first.model_copy(update=fields).document())
    planning.begin(store, Holder(run_id="last"), datetime.now(UTC), force=True)
    lock.release(store, "last")


def _peak_mib(pid: int) -> float:
    kib = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert kib is not None
    return int(kib[1]) / 1024


def _scrapes(address: str) -> Iterator[float]:
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        with urlopen(f"{address}/metrics", timeout=60) as answer:
            answer.read()
        yield 1000 * (time.perf_counter() - begun)


def _reading(uri: str) -> tuple[float, float]:
    """Return seconds and peak MiB of one reading in a process of its own."""
    code = (
        "import resource, sys; from alfamix_core.project import state; state.main(); "
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, int(done.stderr) / 1024


def main() -> None:
    """Make the project, serve it, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exporter", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).resolve().as_uri())
        begun = time.perf_counter()
        _history(store, arguments.rounds, arguments.queries)
        print(f"history of {arguments.rounds:,} rounds made in {time.perf_counter() - begun:.0f} s", flush=True)
        seconds, reader = _reading(store.uri)
        command = [sys.executable, "-m", "pipelines.cli", "exporter", store.uri, "--port", "0", "--refresh", "5"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                found = re.search(r":(\d+)/", process.stderr.readline())
                assert found is not None
                address = f"http://127.0.0.1:{found[1]}"
                time.sleep(3 * seconds + 5)
                times = sorted(_scrapes(address))
                served = _peak_mib(process.pid)
            finally:
                process.kill()
    print(f"scrape: median {statistics.median(times):.1f} ms, largest {times[-1]:.1f} ms, {served:.0f} MiB served from")
    print(f"reading: {seconds:.2f} s, {reader:.0f} MiB, in a process of its own")


if __name__ == "__main__":
    main()
