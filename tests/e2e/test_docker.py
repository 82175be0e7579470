"""Rounds in the real images: every stage in its own container, the project on a real S3 server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from alfamix_core.project import lock, rounds
from alfamix_core.storage import open_store
from components.images import COMPONENTS, image
from tests.conftest import S3Server
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings, write_digits

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("ALFAMIX_E2E_ROUNDS", "2"))
IN_CONTAINERS = ("--engine", "docker", "--network", "host")


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """An engine in which the images are those of this code."""
    subprocess.run([ROOT / "Dockerfiles" / "build.sh"], check=True, stdout=subprocess.DEVNULL)
    engine = docker.from_env()
    yield engine
    engine.close()


@dataclass
class Seen:
    """Events of the containers that ran meanwhile, from the engine."""

    images: list[str]
    statuses: list[int]


def seen_by_engine(client: docker.DockerClient, project: str, since: int) -> Seen:
    """Return what the engine's events say about the project's containers that have ended since a moment, in seconds."""
    seen = Seen([], [])
    wanted = {"event": "die", "label": f"alfamix.project={project}"}
    for event in client.events(since=since, until=int(time.time()) + 1, filters=wanted, decode=True):
        seen.images.append(event["Actor"]["Attributes"]["image"])
        seen.statuses.append(int(event["Actor"]["Attributes"]["exitCode"]))
    return seen


def ours(client: docker.DockerClient, project: str) -> list[str]:
    """The names of the project's containers that exist."""
    return [each.name for each in client.containers.list(all=True, filters={"label": f"alfamix.project={project}"})]


def queries(project: str) -> list[list[str]]:
    """The samples that each round asked, best first."""
    store = open_store(project)
    return [[line["sample_id"] for line in produced(store, number, "questions")] for number in rounds.numbers(store)]


def outcomes(alfamix: Command, project: str) -> list[dict[str, object]]:
    """The results of the rounds, without the times."""
    rounds = json.loads(alfamix("status", project, "--json").stdout)["rounds"]
    return [each["outcome"]["metrics"] for each in rounds]


def test_containers_ask_what_processes_ask(
    tmp_path: Path,
    client: docker.DockerClient,
    alfamix: Command,
    s3_server: S3Server,
    environment: dict[str, str],
):
    """Digits, three shards, round after round with answers in between, under either of the SDK's runners."""
    environment |= s3_server.environment
    manifest = write_digits(tmp_path / "digits", labelled=100, test=300, pool=1397)
    asked, measured = {}, {}
    for engine, options in (("docker", IN_CONTAINERS), ("local", ())):
        project = f"s3://{s3_server.bucket}/e2e-{engine}"
        pairs = ("image.channels=grey", "round.shard_size=500", "round.max_shards=3", "training.max_epochs=30")
        alfamix("init", project, *INIT, *settings(*pairs, "seed=7"))
        alfamix("drop", project, manifest, "--name", "first")
        for number in range(1, ROUNDS + 1):
            if number > 1:
                alfamix("answer", project, "--oracle", manifest.parent / "answers.csv")
            began = int(time.time())
            alfamix("round", project, *options)
            if engine == "docker":
                seen = seen_by_engine(client, project, began)
                expected = [image(component) for component in COMPONENTS]
                expected += [image("embed"), image("score")] * 2
                assert sorted(seen.images) == sorted(expected)
                assert set(seen.statuses) == {0}
        asked[engine], measured[engine] = queries(project), outcomes(alfamix, project)
    assert [len(each) for each in asked["docker"]] == [20] * ROUNDS
    assert asked["docker"] == asked["local"]
    assert measured["docker"] == measured["local"]
    assert not ours(client, f"s3://{s3_server.bucket}/e2e-docker")


def started(project: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a round in containers, and return when a container trains."""
    # a suite started in the background of a shell ignores interrupts, and so do its children
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pipelines.cli", "round", project, *IN_CONTAINERS]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    engine, deadline = docker.from_env(), time.monotonic() + 120
    wanted = {"label": f"alfamix.project={project}", "ancestor": image("train")}
    while not engine.containers.list(filters=wanted):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    engine.close()
    return process


def test_a_stopped_run_leaves_no_container_and_those_of_a_killed_run_are_removed_by_the_next(
    digits: Path, client: docker.DockerClient, alfamix: Command, s3_server: S3Server, environment: dict[str, str]
):
    environment |= s3_server.environment
    project = f"s3://{s3_server.bucket}/e2e-docker-killed"
    alfamix("init", project, *INIT, *settings(*SMALL))
    alfamix("drop", project, digits)
    store = open_store(project)

    command = started(project, environment)
    command.send_signal(signal.SIGINT)
    assert command.wait(60) != 0
    assert not ours(client, project)

    command = started(project, environment)
    held = lock.read(store)
    assert held is not None
    assert held[0].holder is not None
    os.kill(held[0].holder.pid, signal.SIGKILL)
    assert command.wait(60) == 1
    assert ours(client, project), "a container outlives what started it"

    alfamix("round", project, *IN_CONTAINERS)
    assert not ours(client, project)
    released = lock.read(store)
    assert released is not None
    assert released[0].holder is None
    assert released[0].fence > held[0].fence
    assert [len(each) for each in queries(project)] == [20]


def test_a_project_in_a_folder_is_for_the_user_of_the_containers(
    tmp_path: Path, digits: Path, client: docker.DockerClient, alfamix: Command
):
    if os.getuid():
        pytest.skip("root is who has to hand the folder over")
    project = tmp_path / "project"
    alfamix("init", project, *INIT, "--data-prefix", digits.parent, *settings(*SMALL))
    alfamix("drop", project, digits)
    refused = alfamix("round", project, "--engine", "docker", status=2).stderr
    assert refused.startswith(f"alfamix: {project}: containers run as user 65532, who does not own this folder; ")
    assert len(refused.splitlines()) == 1

    subprocess.run(["chown", "-R", "65532", project], check=True)
    alfamix("round", project, "--engine", "docker")
    assert [len(each) for each in queries(project.as_uri())] == [20]
    assert not ours(client, project.as_uri())
