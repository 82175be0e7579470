"""The compiled pipeline is the committed one, and says what must hold of every task."""

import importlib.metadata as metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from alfamix_core import __version__
from components import images
from pipelines.compile import GOLDEN, PACKAGE, compile_round
from pipelines.platform_settings import PlatformSettings

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4


def without_sdk_version(text: str) -> list[str]:
    return [line for line in text.splitlines() if "sdkVersion" not in line]


def test_the_compiled_pipeline_is_the_committed_one(tmp_path: Path):
    compile_round(tmp_path / "round.yaml", PlatformSettings())
    compiled = without_sdk_version((tmp_path / "round.yaml").read_text("utf-8"))
    assert compiled == without_sdk_version(GOLDEN.read_text("utf-8")), "run `make compile` and look at the difference"


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.yaml", "b.yaml"):
        subprocess.run([sys.executable, "-m", "pipelines.compile", "--to", str(tmp_path / name)], check=True, cwd=ROOT)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_only_the_projects_uri_is_required():
    spec = yaml.safe_load(GOLDEN.read_text("utf-8").split("\n---\n")[0])
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, p in parameters.items() if not p.get("isOptional")] == ["project_uri"]


def run(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m pipelines.compile`` as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.compile", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_has_every_image_by_digest_and_the_versions_name(tmp_path: Path):
    lines = [f"{name} r.example.org/alfamix-{name}@{DIGEST}\n" for name in images.COMPONENTS]
    (tmp_path / "digests").write_text("".join(lines), "utf-8")
    (tmp_path / "platform.toml").write_text("run_hours = 48", "utf-8")
    done = run("--digests", "digests", "--settings", "platform.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {PACKAGE}\n"
    assert PACKAGE.name == f"alfamix-round-{__version__}.yaml"
    spec, platform = yaml.safe_load_all((tmp_path / PACKAGE).read_text("utf-8"))
    found = {item["container"]["image"] for item in spec["deploymentSpec"]["executors"].values()}
    assert found == {f"r.example.org/alfamix-{name}@{DIGEST}" for name in images.COMPONENTS}
    assert platform["platforms"]["kubernetes"]["pipelineConfig"]["activeDeadlineSeconds"] == 48 * 3600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--digests", "digests"), "alfamix: digests: no line for embed\n"),
        (("--settings", "none.toml"), "alfamix: none.toml: cannot be read: No such file or directory\n"),
        (("--settings", "bad.toml"), 'alfamix: bad.toml: unknown field "gpus"\n'),
        (("--to", "round.json"), "alfamix: round.json: the file's name must end in .yaml\n"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path: Path, arguments: tuple[str, ...], message: str):
    lines = [f"{name} r.example.org/{name}@{DIGEST}\n" for name in images.COMPONENTS if name != "embed"]
    (tmp_path / "digests").write_text("".join(lines), "utf-8")
    (tmp_path / "bad.toml").write_text("gpus = 2", "utf-8")
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    assert {item.name for item in tmp_path.iterdir()} == {"digests", "bad.toml"}


def test_compiling_imports_neither_torch_nor_boto3():
    code = (
        "import sys; import pipelines.compile; "
        "sys.exit(bool({'torch', 'torchvision', 'boto3', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def small_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: what the extra ``kubeflow`` asks for, pydantic, all that they need, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [Requirement(item) for item in ["pydantic", *project["optional-dependencies"]["kubeflow"]]]
    folder = tmp_path_factory.mktemp("site-packages")
    known: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        distribution = metadata.distribution(requirement.name)
        for extra in ("", *requirement.extras):
            if (requirement.name.lower(), extra) in known:
                continue
            known.add((requirement.name.lower(), extra))
            needs = map(Requirement, distribution.requires or ())
            wanted += [item for item in needs if item.marker is None or item.marker.evaluate({"extra": extra})]
        for file in distribution.files or ():
            place = folder / file
            if file.parts[0] != ".." and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(Path(str(file.locate())))
    return folder


def test_the_extra_kubeflow_is_enough_to_compile(small_environment: Path, tmp_path: Path):
    def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PYTHONPATH": f"{small_environment}:{ROOT}", "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        command = [sys.executable, "-S", "-B", *arguments]  # without the packages of this environment
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    for name in ("torch", "boto3", "numpy"):
        assert f"No module named '{name}'" in python("-c", f"import {name}").stderr
    done = python("-m", "pipelines.compile", "--to", "round.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote round.yaml\n", "")
    compiled = without_sdk_version((tmp_path / "round.yaml").read_text("utf-8"))
    assert compiled == without_sdk_version(GOLDEN.read_text("utf-8"))
