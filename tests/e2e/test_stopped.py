"""An export that is stopped before any of its writes, and wakes up when somebody else has the project, changes nothing.

The processes are real: SIGSTOP strikes just before the write, as a pod does that is frozen, or a machine that sleeps.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alfamix_core.project import cleaning, layout, models, objects, rounds
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.query import ChosenSample, Question
from alfamix_core.records.record import read_lines
from alfamix_core.storage import Store, file_uri, open_store
from components.export import stage as export
from components.finish import stage as finish
from components.snapshot import stage as snapshot
from tests.components.conftest import Birds
from tests.components.test_export import artifacts, bad

ROOT = Path(__file__).parents[2]

SERVER = """
import json, os, signal, sys
from alfamix_core.project.failures import StageContext, reported
from alfamix_core.storage.folder import FolderStore
from components.export import stage

left = 0

def stopping(write):
    def stopped(self, *arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        left -= 1
        return write(self, *arguments)
    return stopped

for name in ("create", "_create_from", "swap", "mark", "delete"):
    setattr(FolderStore, name, stopping(getattr(FolderStore, name)))

def parent_sees(answer):
    os.write(int(sys.argv[1]), (json.dumps(answer) + "\\n").encode())

for line in sys.stdin:
    left, (uri, key, *paths) = json.loads(line)
    if (pid := os.fork()) == 0:
        with reported(StageContext("export", uri, key, run_id="run-1")):
            stage.run(uri, key, "run-1", *paths)
        os._exit(0)
    _, status = os.waitpid(pid, os.WUNTRACED)
    parent_sees(os.WIFSTOPPED(status))
    sys.stdin.readline()
    if os.WIFSTOPPED(status):
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
    parent_sees(os.waitstatus_to_exitcode(status))
"""


class Exports:
    """A process that exports as run-1, stopped where the test says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _ask(self, line: str) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, writes: int, *arguments: str) -> bool:
        """Export until that many writes are done; return whether it was stopped before a further one."""
        return bool(self._ask(json.dumps([writes, arguments])))

    def resume(self) -> int:
        """Let it run to its end; return its exit status."""
        return int(str(self._ask("")))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    log = tmp_path_factory.mktemp("exports") / "log"
    # what the stage prints goes to the log, so that stdout is for the answers alone
    command = f"exec \"{sys.executable}\" -c '{SERVER}' 3 3>&1 1>'{log}' 2>&1"
    with subprocess.Popen(
        ["sh", "-c", command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Exports(process)
        process.kill()


def choice(birds: Birds, *ids: str) -> list[ChosenSample]:
    return [
        ChosenSample(
            rank=rank, position=rank, sample_id=key, uri=birds.store.uri_of(f"drops/first/{key}.png"), suggestion="cat"
        )
        for rank, key in enumerate(ids)
    ]


def model_of(birds: Birds, folder: Path) -> str:
    """Put a model into the project, as evaluate does; return its digest."""
    folder.mkdir()
    for name in models.FILES:
        (folder / name).write_text(f"{folder.name} {name}")
    return models.upload(birds.store, folder)


def visible(store: Store) -> dict[str, bytes]:
    """What readers see of a project: not what no record names, nor what a run leaves while it is worked on."""
    named = set()
    records = list(rounds.read_all(store))
    for record in records:
        named |= {layout.objects(record.number) + digest for digest in record.objects.values()}
        if "questions" in record.objects:
            lines = objects.read(store, record, "questions").splitlines()
            named |= {question.thumbnail for _, question in read_lines(Question, lines, "questions")}
    hidden = tuple(place(record.number) for record in records for place in (layout.objects, layout.run))
    return {
        entry.key: store.read(entry.key).data
        for entry in store.list()
        if entry.key in named or not entry.key.startswith(hidden)
    }


def another_run_exports(birds: Birds, folder: Path) -> None:
    """It could read every sample, and chose others."""
    key = birds.ingest("run-2", force=True)
    snapshot.run(birds.uri, key, str(folder / "world"), str(folder / "champion"))
    queries, measured = artifacts(folder / "second", choice(birds, "d"), model=model_of(birds, folder / "second-model"))
    paths = (str(path) for path in (folder / "world", queries, measured, folder / "second.html"))
    export.run(birds.uri, key, "run-2", *paths)
    assert finish.run(birds.uri, "run-2") == "exported"


def the_round_is_abandoned(birds: Birds, folder: Path) -> None:
    if not rounds.read(birds.store, 1)[0].is_committed:
        rounds.abandon(birds.store, "it hangs", datetime.now(UTC))


def somebody_cleans(birds: Birds, folder: Path) -> None:
    cleaning.clean(birds.store, 10, datetime.now(UTC))


@contextmanager
def copied(folder: Path, name: str) -> Iterator[tuple[Birds, Path]]:
    place = Path(shutil.copytree(folder / "origin", folder / name))
    birds = Birds.__new__(Birds)
    birds.uri = file_uri(place / "birds")
    birds.store = open_store(birds.uri)
    yield birds, place
    shutil.rmtree(place)


@pytest.mark.parametrize("meanwhile", [another_run_exports, the_round_is_abandoned, somebody_cleans])
def test_an_export_stopped_before_any_of_its_writes_changes_nothing_when_it_wakes_up(tmp_path, exports, meanwhile):
    (tmp_path / "origin").mkdir()
    origin = Birds(file_uri(tmp_path / "origin" / "birds"))
    stored = origin.store.read(layout.PROJECT)
    origin.store.swap(layout.PROJECT, stored.data.replace(b"0.05", b"0.5"), stored.tag)
    origin.drop("first", *"abcd")
    origin.drop("known", "k", label="dog")
    key = origin.ingest("run-1")
    snapshot.run(origin.uri, key, str(tmp_path / "origin" / "snapshot"), str(tmp_path / "origin" / "champion"))
    model = model_of(origin, tmp_path / "model")
    artifacts(tmp_path / "origin", choice(origin, "b", "c"), bad=[bad("a")], model=model)
    writes = 0
    while True:
        with copied(tmp_path, str(writes)) as (birds, place):
            paths = (str(place / name) for name in ("snapshot", "queries", "evaluation", "report.html"))
            if not exports.start(writes, birds.uri, key, *paths):
                assert exports.resume() == 0
                break
            committed = rounds.read(birds.store, 1)[0].is_committed
            birds.expire_lock()
            meanwhile(birds, place)
            before = visible(birds.store)
            status = exports.resume()
            after = visible(birds.store)
            if committed:
                # the promotion of a committed round is due, whichever run applies it
                before.setdefault(layout.CHAMPION, after[layout.CHAMPION])
                assert status == 0
            elif meanwhile is not another_run_exports:
                assert status in (2, 3)
            assert after == before
            with open_ledger(birds.store, rounds.read_settings(birds.store), datetime.now(UTC)) as ledger:
                asked, unreadable = {question.sample_id for question in ledger.open_queries()}, {*ledger.quarantined()}
            others = {"d"} if meanwhile is another_run_exports else set()
            assert asked == ({"b", "c"} if committed else set()) | others
            assert unreadable == ({"a"} if committed else set())
        writes += 1
    assert writes >= 8, "a mark, the lock, the objects, the record and the champion"
