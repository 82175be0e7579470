"""A training that is killed continues from its last checkpoint, and ends with the bytes of an undisturbed one."""

import json
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from alfamix_core.learning.distributed import PROCESSES
from alfamix_core.project import layout
from alfamix_core.records.checkpoint import Commit
from alfamix_core.records.lock import Holder
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.events import parse
from components.ingest import stage as ingest
from components.snapshot import stage as snapshot
from tests.e2e.conftest import INIT, Command, settings

EPOCHS = 60
COMMIT = layout.run(1) + "train/checkpoint.json"
TRAIN = """
import sys
from components.train import stage
stage.run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], project_uri=sys.argv[5])
"""
# the process dies, by its own SIGKILL, when the tensors of its third checkpoint are written and not committed
DIES_BEFORE_COMMIT = """
import os, signal
from alfamix_core.learning.checkpoints import Checkpoints
commit, calls = Checkpoints._commit, []
def dying(self, document):
    calls.append(document)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, document)
Checkpoints._commit = dying
"""


@dataclass(frozen=True)
class World:
    """A planned round with its snapshot."""

    uri: str
    store: Store
    folder: Path
    environment: dict[str, str]

    def start(self, name: str, code: str = TRAIN, checkpoints: bool = True) -> psutil.Popen:
        """Start the stage in a process of its own."""
        out = self.folder / name
        out.mkdir(exist_ok=True)
        command = [sys.executable, "-c", code, *(str(self.folder / part) for part in ("snapshot", "champion"))]
        command += [str(out / "model"), str(out / "labelled"), self.uri if checkpoints else ""]
        with (out / "log").open("ab") as log:
            return psutil.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def finish(self, name: str, code: str = TRAIN, checkpoints: bool = True) -> None:
        """Run the stage to its end."""
        process = self.start(name, code, checkpoints)
        assert process.wait(180) == 0, (self.folder / name / "log").read_text(encoding="utf-8")

    def outcome(self, name: str) -> dict[str, bytes]:
        """The model and the features, byte by byte; not stage.json, which holds times."""
        files = [path for path in (self.folder / name).rglob("*") if path.is_file()]
        contents = {str(path.relative_to(self.folder / name)): path.read_bytes() for path in files}
        return {path: data for path, data in contents.items() if path.rsplit("/")[-1] not in ("stage.json", "log")}

    def continued(self, name: str) -> list[int]:
        """The epochs after which attempts continued."""
        lines = (self.folder / name / "log").read_text(encoding="utf-8").splitlines()
        events = [event for line in lines if (event := parse(line))]
        return [int(str(event["epoch"])) for event in events if event["alfamix"] == "continued"]

    def kept_epoch(self) -> int:
        """The epoch of the checkpoint in the project; 0 where there is none."""
        if self.store.entry(COMMIT) is None:
            return 0
        return Commit.parse(self.store.read(COMMIT).data, COMMIT).course.epochs

    def kill_after(self, name: str, epoch: int) -> None:
        """Start the stage and kill it and its children when a checkpoint of that epoch or a later one is there."""
        process = self.start(name)
        deadline = time.monotonic() + 180
        while self.kept_epoch() < epoch:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        family = [*process.children(recursive=True), process]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
        assert not (self.folder / name / "model" / "model.json").exists()


@pytest.fixture(params=["folder", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.faults])])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, digits: Path, alfamix: Command, environment: dict[str, str]
) -> World:
    uri = (tmp_path / "project").as_uri()
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        environment |= server.environment
        uri = f"s3://{server.bucket}/{uuid.uuid4().hex}"
    small = ("image.channels=grey", "training.stop=never", f"training.max_epochs={EPOCHS}", "training.batch_size=16")
    chosen = ("training.augmentation=crop", "model.dropout=0.2", "training.checkpoint_seconds=0")
    alfamix("init", uri, *INIT, *settings(*small, *chosen))
    alfamix("drop", uri, digits)
    key = ingest.run(uri, Holder(run_id="one"))
    snapshot.run(uri, key, str(tmp_path / "snapshot"), str(tmp_path / "champion"))
    return World(uri, open_store(uri), tmp_path, {**environment, "PYTHONPATH": str(Path.cwd())})


def test_a_training_killed_in_the_middle_ends_with_the_model_of_an_undisturbed_one(world: World):
    world.finish("calm", checkpoints=False)
    calm = world.outcome("calm")
    assert {"model/model.json", "model/model.safetensors"} < set(calm)
    world.kill_after("killed", 3)
    kept = world.kept_epoch()
    world.kill_after("killed", kept + 2)
    last = world.kept_epoch()
    world.finish("killed")
    assert world.outcome("killed") == calm
    assert world.continued("killed") == [kept, last]
    assert 3 <= kept < last < EPOCHS

    left = [entry.key for entry in world.store.list(layout.run(1) + "train/")]
    assert len(left) == 2
    world.finish("again")
    assert world.outcome("again") == calm
    assert world.continued("again") == [EPOCHS]


def test_a_training_killed_between_tensors_and_commit_continues_from_the_previous_checkpoint(world: World):
    world.finish("calm", checkpoints=False)
    process = world.start("killed", DIES_BEFORE_COMMIT + TRAIN)
    assert process.wait(120) == -signal.SIGKILL
    assert world.kept_epoch() == 2
    assert len(list(world.store.list(layout.run(1) + "train/"))) == 3, "one file of tensors too many"
    world.finish("killed")
    assert world.continued("killed") == [2]
    assert world.outcome("killed") == world.outcome("calm")
    assert len(list(world.store.list(layout.run(1) + "train/"))) == 2


def test_two_processes_killed_in_the_middle_end_with_the_model_of_two_undisturbed_ones(world: World):
    world.environment[PROCESSES] = "2"
    world.finish("calm", checkpoints=False)
    world.kill_after("killed", 3)
    kept = world.kept_epoch()
    world.finish("killed")
    assert world.outcome("killed") == world.outcome("calm")
    assert world.continued("killed") == [kept]

    world.environment[PROCESSES] = "1"
    world.finish("alone")
    assert world.continued("alone") == [], "a checkpoint of two processes is none of one's"
    assert "belongs to another training and is not used" in (world.folder / "alone" / "log").read_text(encoding="utf-8")


def test_the_death_of_the_launcher_ends_its_processes(world: World):
    world.environment[PROCESSES] = "2"
    process = world.start("orphans")
    deadline = time.monotonic() + 120
    while not world.kept_epoch():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = process.children(recursive=True)
    process.kill()
    process.wait()
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=30)[1]


def test_a_project_that_cannot_keep_checkpoints_still_gets_its_model(world: World):
    """The folder of checkpoints is a file, so that every write below it is refused."""
    world.finish("calm", checkpoints=False)
    world.store.create(layout.run(1) + "train", b"in the way")
    world.finish("warned")
    assert world.outcome("warned") == world.outcome("calm")
    log = (world.folder / "warned" / "log").read_text(encoding="utf-8")
    assert json.loads((world.folder / "warned" / "model" / "model.json").read_text())["epochs"] == EPOCHS
    if world.uri.startswith("file:"):
        assert "the checkpoint of epoch 1 could not be written" in log
