"""What the images install is what the project's lock names, and a build target exists for every image."""

import re
from pathlib import Path

import pytest

from components.images import TRIGGER
from components.stages import STAGES

ROOT = Path(__file__).parents[2]
LOCKS = ("small", "gpu", "trigger")


def entries(path: Path) -> dict[str, set[str]]:
    """Return the hashes of every package of a lock, by ``name==version``."""
    found: dict[str, set[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if match := re.match(r"([a-z0-9.-]+==\S+)", line):
            pinned = found.setdefault(match[1], set())
        elif match := re.match(r"    --hash=(sha256:[0-9a-f]{64})", line):
            pinned.add(match[1])
    return found


@pytest.mark.parametrize("runtime", LOCKS)
def test_a_runtime_has_the_versions_and_hashes_of_the_projects_lock(runtime: str):
    project = entries(ROOT / "requirements.lock")
    images = entries(ROOT / "Dockerfiles" / f"{runtime}.lock")
    assert images
    for package, hashes in images.items():
        assert package in project, "run `make lock`"
        assert hashes == project[package] != set()


def test_the_small_runtime_has_kfp_alone_and_no_torch():
    names = {package.partition("==")[0] for package in entries(ROOT / "Dockerfiles" / "small.lock")}
    assert {"kfp", "boto3", "pyarrow", "pydantic"} <= names
    assert not {"torch", "requests", "protobuf", "kubernetes", "setuptools"} & names


@pytest.mark.parametrize("runtime", ["gpu", "trigger"])
def test_the_other_runtimes_bring_nothing_twice(runtime: str):
    small = entries(ROOT / "Dockerfiles" / "small.lock").keys()
    assert not small & entries(ROOT / "Dockerfiles" / f"{runtime}.lock").keys()


def test_every_image_has_a_target_of_its_own_stage_on_its_runtime():
    runtimes = {name: runtime for runtime, name in re.findall(r"^FROM (small|gpu) AS (\w+)$", _dockerfile(), re.M)}
    assert runtimes == {name: stage.runtime for name, stage in STAGES.items()} | {TRIGGER: "small"}
    for component in STAGES:
        copied = f"FROM {runtimes[component]} AS {component}\nCOPY --from=code /opt/alfamix/components/{component} "
        assert copied in _dockerfile()


def test_no_image_has_an_entrypoint_and_all_run_as_a_number():
    assert "ENTRYPOINT" not in _dockerfile()
    assert re.findall(r"^USER (.*)$", _dockerfile(), re.M) == ["65532:65532"] * 2


def _dockerfile() -> str:
    return (ROOT / "Dockerfiles" / "Dockerfile").read_text("utf-8")
