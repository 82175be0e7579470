"""Twenty runners that start together: one has the round, and the others report it, on every store."""

import json
import os
import subprocess
import sys
from pathlib import Path

from alfamix_core.project import layout, lock, rounds
from alfamix_core.project.initialise import initialise
from alfamix_core.records.project import Project
from alfamix_core.storage import Store
from alfamix_core.telemetry.events import parse

ROOT = Path(__file__).parents[2]
RUNNERS = 20

# ingest as the platform calls it, in processes that are all there before the first may begin; the process that they
# name as their driver lives on
RACE = """
import os, sys
from pathlib import Path
import boto3
import components.ingest.stage
from components.ingest.component import ingest

uri, folder, runners = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
waiting, go = os.pipe()
pids = []
for number in range(runners):
    pids.append(os.fork())
    if pids[-1] == 0:
        os.close(go)
        with (folder / str(number)).open("w") as sys.stdout:
            os.read(waiting, 1)
            print("key", ingest.python_func(project_uri=uri, run_id=f"run-{number}", force=False))
        os._exit(0)
os.close(go)
sys.exit(max(os.waitpid(pid, 0)[1] for pid in pids) > 0)
"""


def make(store: Store) -> None:
    """Make a project with ten samples whose files no stage opens."""
    text = {"name": "race", "classes": ["cat", "dog"], "budget": 2, "strategy": {"name": "random"}}
    initialise(store, Project.parse(json.dumps(text), "project"))
    lines = [json.dumps({"uri": f"{number}.png", "id": f"sample-{number}"}) + "\n" for number in range(10)]
    store.create("drops/first/manifest.jsonl", "".join(lines).encode())


def race(store: Store, folder: Path) -> list[tuple[str, dict[str, object]]]:
    """Start all runners together; return the key that each got and the event that it wrote about the round."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RACE, store.uri, str(folder), str(RUNNERS)],
        cwd=ROOT,
        env={**os.environ, lock.DRIVER: lock.this_process()},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    outputs = [(folder / str(number)).read_text() for number in range(RUNNERS)]
    return [(out.rpartition("key ")[2].strip(), event_of(out)) for out in outputs]


def event_of(out: str) -> dict[str, object]:
    events = [event for line in out.splitlines() if (event := parse(line)) and event["alfamix"] == "round"]
    assert len(events) == 1, out
    return events[0]


def check(store: Store, found: list[tuple[str, dict[str, object]]], number: int, state: str) -> None:
    """One runner has the round; the others were refused in one line that says who has it."""
    winners = [name for name, (_, event) in enumerate(found) if event["state"] == state]
    assert len(winners) == 1, [event for _, event in found]
    record, _ = rounds.read(store, number)
    held = lock.read(store)
    assert held is not None
    assert held[0].holder is not None
    assert held[0].holder.run_id == record.run_id == f"run-{winners[0]}"
    assert rounds.numbers(store) == list(range(1, number + 1))
    for name, (key, event) in enumerate(found):
        if name == winners[0]:
            assert key == record.key
        else:
            assert (key, event["state"]) == ("idle", "refused")
            text = str(event["text"])
            assert "\n" not in text
            assert f"locked by run {record.run_id}" in text or "at the same moment" in text
    # nothing of the refused is left behind: project.json, the manifest, the lock and the round's record
    kept = [entry.key for entry in store.list() if not entry.key.startswith(layout.LEDGER)]
    assert len(kept) == 3 + number


def test_one_of_twenty_runners_has_the_round_and_nineteen_are_refused(store: Store, tmp_path: Path):
    make(store)
    check(store, race(store, tmp_path / "first"), 1, "planned")
    assert lock.unlock(store) is not None, "the winner died without a word, and a person let twenty others in"
    check(store, race(store, tmp_path / "second"), 1, "resumed")
