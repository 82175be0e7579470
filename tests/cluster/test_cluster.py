"""Rounds on a real cluster: `make e2e-cluster`. docs/development.md says how to get one.

Written against the API's documentation and source. The helpers run against test servers in tests/pipelines/
test_cluster_helpers.py; no cluster has run this file yet.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alfamix_core.project import rounds
from alfamix_core.storage import open_store
from components.images import COMPONENTS
from pipelines.engines.kubeflow import Kubeflow
from tests.cluster.cluster import Pods, Runs, eventually
from tests.cluster.surroundings import MissingError, Surroundings, given
from tests.e2e.conftest import INIT, produced, settings, write_digits

pytestmark = pytest.mark.cluster

MINUTE = 60.0
PAIRS = ("image.channels=grey", "round.shard_size=60", "round.max_shards=3", "training.max_epochs=20", "seed=7")


class Bench:
    """Two projects of the same digits: one on the cluster, its twin on this machine."""

    def __init__(self, around: Surroundings, folder: Path) -> None:
        self.around = around
        self.project = f"{around.bucket}/{uuid.uuid4().hex}"
        self.twin = (folder / "twin").as_uri()
        (folder / "platform.toml").write_text(around.platform(), "utf-8")
        self.environment = {
            **os.environ,
            "ALFAMIX_WORK": str(folder / "work"),
            "ALFAMIX_PLATFORM_SETTINGS": str(folder / "platform.toml"),
        }
        self.manifest = write_digits(folder / "digits")

    def run(self, *arguments: object, status: int = 0) -> str:
        """Run a command that must end with a status; return its standard output."""
        command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def round(self, *options: str, status: int = 0) -> str:
        """Run a round on the cluster, and wait for its end."""
        return self.run("round", self.project, "--engine", "kubeflow", "--wait", *options, status=status)

    def start(self, *options: str) -> str:
        """Start a run and return its id."""
        return str(json.loads(self.run("round", self.project, "--engine", "kubeflow", "--json", *options))["run_id"])

    def answer(self) -> None:
        """Answer all questions of both projects."""
        for project in (self.project, self.twin):
            self.run("answer", project, "--oracle", self.manifest.parent / "answers.csv")

    def queries(self, project: str) -> list[list[str]]:
        """Return the samples that each round asked, best first."""
        store = open_store(project)
        return [
            [line["sample_id"] for line in produced(store, number, "questions")] for number in rounds.numbers(store)
        ]

    def same_as_the_twin(self) -> None:
        """Run the twin's round and compare what was asked, and the record of the stages."""
        self.run("round", self.twin)
        asked = self.queries(self.project)
        assert asked == self.queries(self.twin)
        assert all(asked)
        record = rounds.read_all(open_store(self.project))[-1]
        assert record.outcome is not None
        assert set(record.outcome.stages) == set(COMPONENTS) - {"ingest", "finish"}
        assert record.outcome.metrics == rounds.read_all(open_store(self.twin))[-1].outcome.metrics  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def around() -> Surroundings:
    try:
        return given()
    except MissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def bench(around: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(around, tmp_path_factory.mktemp("cluster"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ALFAMIX_PLATFORM_SETTINGS", bench.environment["ALFAMIX_PLATFORM_SETTINGS"])
        for project in (bench.project, bench.twin):
            bench.run("init", project, *INIT, *settings(*PAIRS))
            bench.run("drop", project, bench.manifest, "--name", "first")
        yield bench
    store = open_store(bench.project)
    for entry in list(store.list()):
        store.delete(entry.key)


@pytest.fixture(scope="module")
def runs(bench: Bench) -> Iterator[Runs]:
    kubeflow = Kubeflow(bench.around.endpoint, os.environ.get("KF_PIPELINES_NAMESPACE", ""))
    runs = Runs(kubeflow, rounds.read_settings(open_store(bench.project)), bench.project)
    before = runs.versions()
    yield runs
    runs.remove()
    runs.remove_version(before)


@pytest.fixture(scope="module")
def cluster_pods(around: Surroundings) -> Iterator[Pods]:
    pods = Pods(around.kubeconfig, around.namespace)
    yield pods
    pods.close()


def ended(runs: Runs, run_id: str, minutes: float = 30) -> str:
    """Wait for a run's end; return its state."""
    eventually(f"the end of run {run_id}", minutes * MINUTE, lambda: not runs.kubeflow.run(run_id).in_flight, poll=5.0)
    return runs.kubeflow.run(run_id).state


def test_the_first_round_asks_what_the_local_engine_asks(bench: Bench, runs: Runs):
    assert "asked 20 queries" in bench.round()
    bench.same_as_the_twin()
    stages = runs.all()[0].stages
    assert [name for name, stage in stages.items() if stage.state in ("succeeded", "cached")] == list(COMPONENTS)


def test_a_second_run_is_refused_while_a_pod_that_is_gone_in_each_of_three_stages_costs_nothing(
    bench: Bench, runs: Runs, cluster_pods: Pods
):
    """Under OnError, OnTransientError and Always Argo replaces such pods (docs/operations.md)."""
    bench.answer()
    run_id = bench.start()
    for stage in ("train", "embed", "export"):
        (name, *_) = eventually(f"a pod of {stage}", 20 * MINUTE, lambda s=stage: cluster_pods.of_stage(run_id, s), 0.5)
        if stage == "train":
            bench.run("round", bench.project, "--engine", "kubeflow", status=2)
        cluster_pods.kill(name)
    assert ended(runs, run_id) == "SUCCEEDED"
    bench.same_as_the_twin()


def test_an_evicted_pod_costs_at_most_another_run(bench: Bench, runs: Runs, cluster_pods: Pods):
    """Kubeflow's default, OnError, does not replace it: then the run fails and the next one continues."""
    bench.answer()
    run_id = bench.start()
    (name, *_) = eventually("a pod of embed", 20 * MINUTE, lambda: cluster_pods.of_stage(run_id, "embed"), 0.5)
    cluster_pods.evict(name)
    if ended(runs, run_id) != "SUCCEEDED":
        bench.round()
    bench.same_as_the_twin()


def test_a_terminated_round_is_resumed_without_the_cache(bench: Bench, runs: Runs, cluster_pods: Pods):
    bench.answer()
    run_id = bench.start()
    eventually("a pod of embed", 20 * MINUTE, lambda: cluster_pods.of_stage(run_id, "embed"))
    runs.terminate(run_id)
    ended(runs, run_id)
    bench.round("--fresh")
    stages = runs.all()[0].stages
    assert not [name for name, stage in stages.items() if "CACHED" in stage.states]
    bench.same_as_the_twin()


def test_a_schedule_starts_a_round(bench: Bench, runs: Runs):
    bench.answer()
    known = {run.run_id for run in runs.all()}
    soon = datetime.now(UTC) + timedelta(minutes=2)
    bench.run("schedule", "set", bench.project, "--cron", f"0 {soon.minute} {soon.hour} * * *")
    bench.run("doctor", bench.project, "--engine", "kubeflow", status=0)

    def new() -> list[str]:
        return [run.run_id for run in runs.all() if run.run_id not in known and run.recurring_run_id]

    (run_id,) = eventually("the scheduled run", 6 * MINUTE, new)  # type: ignore[misc]
    assert ended(runs, run_id) == "SUCCEEDED"
    bench.run("schedule", "remove", bench.project)
    bench.same_as_the_twin()


def test_a_trigger_starts_a_round_and_the_metrics_arrive(bench: Bench, runs: Runs):
    bench.answer()
    known = {run.run_id for run in runs.all()}
    bench.run("trigger", bench.project, "--engine", "kubeflow", "--once")
    (run_id,) = {run.run_id for run in runs.all()} - known
    assert ended(runs, run_id) == "SUCCEEDED"
    bench.same_as_the_twin()
    status = json.loads(bench.run("status", bench.project, "--json"))
    assert [record["state"] for record in status["rounds"]] == ["closed"] * 5 + ["exported"]
    assert all("accuracy" in record["outcome"]["metrics"] for record in status["rounds"])
