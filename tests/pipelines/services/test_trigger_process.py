"""`alfamix trigger` as a process: SIGTERM, restart, one real round, a cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from alfamix_core.project import layout, lock
from alfamix_core.storage import open_store
from pipelines.engines import work_folder
from pipelines.engines.this_machine import ThisMachine
from pipelines.services.trigger import Pace, Trigger
from pipelines.services.trigger_metrics import TriggerMetrics
from tests.conftest import _free_ports

ALFAMIX = [sys.executable, "-m", "pipelines.cli"]


@pytest.fixture
def started(birds):
    """Start the trigger on the project; end whatever is left of it."""
    processes = []

    def started(*arguments):
        command = [*ALFAMIX, "trigger", str(birds.project), "--poll", "0.2", "--quiet", "0.1", *map(str, arguments)]
        env = {**os.environ, "ALFAMIX_WORK": str(birds.folder / "work"), "PYTHONUNBUFFERED": "1"}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def until(process, state):
    """Read the trigger's events up to one; return it."""
    for line in process.stdout:
        event = json.loads(line)
        if event["state"] == state:
            return event
    raise AssertionError(process.stderr.read())


@pytest.fixture
def sleeping(monkeypatch):
    """A run that sleeps instead of training, in a process as a real one's."""
    start = subprocess.Popen
    children = []

    def popen(command, **named):
        children.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **named))
        return children[-1]

    monkeypatch.setattr("pipelines.engines.progress.subprocess.Popen", popen)
    yield children
    for child in children:
        child.kill()
        child.wait()


def test_sigterm_ends_the_trigger_and_leaves_the_run(birds, started):
    """The run is in a session of its own; the project's lock keeps a restarted trigger from starting another."""
    (port,) = _free_ports(1)
    process = started("--port", port)
    event = until(process, "started")
    assert (event["project"], event["round"]) == ("birds", 1)
    pid = int(re.search(r"process (\d+)", event["text"])[1])
    with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        assert answer.status == 200
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert 'alfamix_trigger_starts_total{project="birds"} 1.0' in answer.read().decode()
    os.kill(pid, signal.SIGSTOP)  # so that it is certainly there
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert until(process, "stopped")["text"] == "a local run that is under way continues"
        os.kill(pid, 0)
    finally:
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_sigterm_is_heeded_while_nothing_happens(birds, started):
    birds.put("project.json", json.loads((birds.project / "project.json").read_text()) | {"queue": {"max_open": 0}})
    birds.ask(1, "b")
    process = started("--port", 0)
    until(process, "idle")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_the_local_engine_keeps_its_log_and_knows_when_it_is_busy(birds, sleeping, tmp_path):
    store = open_store(birds.project.as_uri())
    engine = ThisMachine(store, tmp_path / "w")
    trigger = Trigger(store, engine, Pace(quiet=0), TriggerMetrics("birds"), None, "birds")
    old = work_folder.of_round(tmp_path / "w", 0)
    old.mkdir(parents=True)
    trigger._look()
    trigger._ask()
    assert engine.busy()
    assert not old.exists()
    trigger._ask()
    assert len(sleeping) == 1
    sleeping[0].kill()
    assert trigger._follow() == 1
    assert not engine.busy()


def test_once_on_a_cluster_starts_one_run_and_not_another_beside_it(birds, server):
    arguments = ("trigger", "birds", "--once", "--engine", "kubeflow", "--endpoint", server.endpoint)
    (birds.folder / "empty").mkdir()
    said = [json.loads(line) for line in birds.run(*arguments).splitlines()]
    (run_id,) = server.runs
    assert [(each["state"], each["round"]) for each in said] == [("started", 1)]
    assert said[0]["text"] == f"the first round; {server.endpoint}/#/runs/details/{run_id}"
    assert server.runs[run_id]["runtime_config"]["parameters"] == {
        "project_uri": birds.project.as_uri(),
        "force": False,
        "fresh": False,
    }
    assert "a run is under way" in birds.run(*arguments)
    assert len(server.runs) == 1
    server.move(run_id, "FAILED")
    birds.run(*arguments)
    assert len(server.runs) == 2


LOCKED = {"revision": 1, "fence": 4, "until": "2999-01-01T00:00:00Z"}


@pytest.mark.parametrize("command", [("trigger", "--once"), ("round",)])
def test_the_lock_of_a_run_that_ended_on_the_cluster_is_let_go_and_of_one_in_flight_not(birds, server, command):
    """A run that is killed there cannot let go itself; a holder that the API does not know is left alone."""
    name, *options = command
    arguments = (name, "birds", *options, "--engine", "kubeflow", "--endpoint", server.endpoint)
    dead = server.add_run({"experiment_id": "x"}, "RUNNING")
    for holder in (dead, "unknown"):
        birds.put("lock.json", LOCKED | {"holder": {"run_id": holder}})
        assert f"locked by run {holder}" in birds.alfamix(*arguments).output
    assert len(server.runs) == 1
    server.move(dead, "CANCELED")
    birds.put("lock.json", LOCKED | {"holder": {"run_id": dead}})
    assert "the first round" in birds.run(*arguments)
    assert len(server.runs) == 2
    assert json.loads((birds.project / "lock.json").read_text())["holder"] is None


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--engine", "magic"), 2, '--engine: must be local, docker or kubeflow, not "magic"'),
        (("--sqs", "https://sqs.eu-west-1.amazonaws.com/1/q"), 2, "--sqs: is for a project on S3, not file://"),
        (("--engine", "kubeflow", "--endpoint", "http://127.0.0.1:9"), 3, "cannot be reached"),
        (("--once", "--engine", "kubeflow"), 2, "--endpoint: must be"),
    ],
)
def test_what_cannot_be_is_one_line(birds, server, options, status, message):
    result = birds.alfamix("trigger", "birds", *options)
    assert (result.exit_code, result.stderr.count("\n")) == (status, 1)
    assert message in result.stderr


def test_once_on_a_project_that_was_edited_wrongly_is_one_line(birds):
    birds.configure(budget=0)
    result = birds.alfamix("trigger", "birds", "--once")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_once_runs_a_real_round(birds, started):
    """Files are no pictures, so that the real round stops in a stage: its line and its status come through."""
    birds.configure(limits={"quarantine_share": 0.0})
    process = started("--once")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "alfamix: " in said
    store = open_store(birds.project.as_uri())
    assert lock.read(store)[0].holder is None
    assert store.entry(layout.round_file(1)) is not None
