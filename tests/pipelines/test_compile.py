"""The compiled pipeline is the committed one, and says what must hold of every task."""

import subprocess
import sys
from pathlib import Path

import yaml

from pipelines.compile import GOLDEN, compile_round

CACHED = {"snapshot", "train", "embed", "score", "select"}


def without_sdk_version(text: str) -> list[str]:
    return [line for line in text.splitlines() if "sdkVersion" not in line]


def test_the_compiled_pipeline_is_the_committed_one(tmp_path: Path):
    compile_round(tmp_path / "round.yaml")
    compiled = without_sdk_version((tmp_path / "round.yaml").read_text("utf-8"))
    assert compiled == without_sdk_version(GOLDEN.read_text("utf-8")), "run `make compile` and look at the difference"


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.yaml", "b.yaml"):
        subprocess.run(
            [sys.executable, "-c", f"from pipelines.compile import *; compile_round(Path({str(tmp_path / name)!r}))"],
            check=True,
        )
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_only_the_projects_uri_is_required():
    spec = yaml.safe_load(GOLDEN.read_text("utf-8").split("\n---\n")[0])
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, p in parameters.items() if not p.get("isOptional")] == ["project_uri"]


def test_caching_is_said_for_every_task_and_off_where_the_project_is_touched():
    spec = yaml.safe_load(GOLDEN.read_text("utf-8").split("\n---\n")[0])
    dags = [spec["root"], *(c for c in spec["components"].values() if "dag" in c)]
    tasks = {name: task for dag in dags for name, task in dag["dag"]["tasks"].items()}
    stages = {name: task for name, task in tasks.items() if task["componentRef"]["name"].startswith("comp-")}
    for name, task in stages.items():
        if "dag" in spec["components"][task["componentRef"]["name"]]:
            continue
        assert bool(task["cachingOptions"].get("enableCache")) == (name in CACHED), name


def test_compiling_needs_neither_torch_nor_boto3():
    code = (
        "import sys; from pipelines.compile import compile_round; "
        "sys.exit(bool({'torch', 'torchvision', 'boto3', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
