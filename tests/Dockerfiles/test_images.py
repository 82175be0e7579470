"""The images as they are built: small, locked down, and each with its own stage alone."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ContainerError

from alfamix_core import __version__
from components.images import COMPONENTS, TRIGGER, image
from components.stages import STAGES

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
LIGHT = (*(name for name, stage in STAGES.items() if stage.runtime == "small"), TRIGGER)
EVERY = (*COMPONENTS, TRIGGER)
MEGABYTE = 1_000_000
LOCKED_DOWN = {
    "user": "65532:65532",
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "network_mode": "none",
    "remove": True,
}


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    subprocess.run([ROOT / "Dockerfiles" / "build.sh"], check=True, stdout=subprocess.DEVNULL)
    engine = docker.from_env()
    yield engine
    engine.close()


def run(client: docker.DockerClient, name: str, *command: str) -> str:
    """Run a command in an image as a pod would, and return what it prints."""
    return client.containers.run(image(name), list(command), **LOCKED_DOWN).decode()


@pytest.mark.parametrize("name", EVERY)
def test_it_says_what_it_is_and_runs_as_nobody(client: docker.DockerClient, name: str):
    config = client.images.get(image(name)).attrs["Config"]
    assert config["User"] == "65532:65532"
    assert not config["Entrypoint"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["title"] == f"alfamix-{name}"
    assert labels["revision"]
    assert labels["source"]
    assert bool(config.get("Healthcheck")) == (name == TRIGGER)


@pytest.mark.parametrize("name", LIGHT)
def test_the_small_ones_are_small(client: docker.DockerClient, name: str):
    assert client.images.get(image(name)).attrs["Size"] < 600 * MEGABYTE
    with pytest.raises(ContainerError):
        run(client, name, "python3", "-c", "import torch")


@pytest.mark.parametrize("name", COMPONENTS)
def test_it_holds_the_library_and_its_own_stage_alone(client: docker.DockerClient, name: str):
    code = f"import importlib, kfp.dsl, components.{name}.stage as s; print(s.run.__name__)"
    assert run(client, name, "python3", "-c", code) == "run\n"
    folders = run(client, name, "sh", "-c", "cd /opt/alfamix && echo * components/*/").split()
    assert [folder for folder in folders if folder != "components/__pycache__/"] == [
        "alfamix_core",
        "components",
        f"components/{name}/",
    ]


def test_the_trigger_knows_every_component_and_no_stage(client: docker.DockerClient):
    assert run(client, TRIGGER, "alfamix", "version") == f"{__version__}\n"
    pipeline = run(client, TRIGGER, "sh", "-c", "alfamix compile /tmp/round.yaml && cat /tmp/round.yaml")
    assert all(image(component) in pipeline for component in COMPONENTS)
    assert not run(client, TRIGGER, "find", "/opt/alfamix/components", "-name", "stage.py")


@pytest.mark.parametrize("name", ["ingest", "train", TRIGGER])
def test_no_compiler_and_no_cache_is_left_and_nothing_of_ours_is_writable(client: docker.DockerClient, name: str):
    script = """
        for tool in gcc cc g++ make; do ! command -v $tool || exit 3; done
        find / -xdev \\( -path '*/.cache/*' -o -path '/root/*' \\) -type f 2>/dev/null | head -n 3
        find /opt -writable 2>/dev/null | head -n 3
        find /opt/alfamix -name '*.py' | wc -l
        find /opt/alfamix -name '*.pyc' | wc -l
    """
    modules, compiled = run(client, name, "sh", "-c", script).split()
    assert int(modules) == int(compiled) > 50


def test_components_share_their_heavy_layers(client: docker.DockerClient):
    layers = {name: client.images.get(image(name)).attrs["RootFS"]["Layers"] for name in COMPONENTS}
    for runtime in (set(COMPONENTS) & set(LIGHT), set(COMPONENTS) - set(LIGHT)):
        first, *others = (layers[name][:-1] for name in sorted(runtime))
        assert all(other == first for other in others)


def test_the_triggers_health_is_seen_by_the_engine(client: docker.DockerClient, tmp_path: Path):
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "project.json").write_text(json.dumps({"classes": ["a", "b"], "budget": 1, "name": "birds"}))
    container = client.containers.run(
        image(TRIGGER),
        ["alfamix", "trigger", str(project), "--poll", "1"],
        volumes={str(project): {"bind": str(project), "mode": "ro"}},
        healthcheck={"interval": 1_000_000_000},  # ns; the rest is the image's
        detach=True,
        **{key: value for key, value in LOCKED_DOWN.items() if key != "remove"},
    )
    try:
        deadline = time.monotonic() + 60
        container.reload()
        while container.health == "starting" and time.monotonic() < deadline:
            time.sleep(0.2)
            container.reload()
        assert container.health == "healthy", container.logs().decode()
        container.stop(timeout=20)
        assert container.wait()["StatusCode"] == 0
        assert '"state": "stopped"' in container.logs().decode()
    finally:
        container.remove(force=True)
