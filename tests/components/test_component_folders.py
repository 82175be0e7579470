"""Every component has the same files, and what Kubeflow sees agrees with the work."""

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import image
from components.stages import STAGES
from pipelines import catalogue
from pipelines.compile import GOLDEN

ROOT = Path(__file__).parent.parent.parent / "components"


def function_of(stage: str) -> ast.FunctionDef:
    """The component's function, as written."""
    tree = ast.parse((ROOT / stage / "component.py").read_text("utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef))


def call_of(stage: str) -> ast.Call:
    """The call of ``stage.run`` in the component's body."""
    calls = [node for node in ast.walk(function_of(stage)) if isinstance(node, ast.Call)]
    return next(call for call in calls if ast.unparse(call.func) == "stage.run")


def door_of(stage: str) -> ast.Call:
    """The call of ``run_stage`` in the component's body."""
    calls = [node for node in ast.walk(function_of(stage)) if isinstance(node, ast.Call)]
    return next(call for call in calls if ast.unparse(call.func) == "run_stage")


def test_every_stage_has_a_folder_and_no_folder_is_without_a_stage():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_holds_the_same_files_and_the_path_is_the_name(stage: str):
    files = {path.name for path in (ROOT / stage).iterdir() if path.name != "__pycache__"}
    assert files == {"__init__.py", "component.py", "stage.py", "metadata.yaml", "README.md"}
    assert function_of(stage).name == stage
    assert (ROOT / stage / "README.md").read_text("utf-8").startswith(f"# {stage}\n")


@pytest.mark.parametrize("stage", STAGES)
def test_the_component_hands_its_stage_every_argument_by_the_same_name(stage: str):
    run = inspect.signature(import_module(f"components.{stage}.stage").run)
    required = {name for name, p in run.parameters.items() if p.default is inspect.Parameter.empty}
    call = call_of(stage)
    assert not call.args, "arguments are handed on by name"
    given = {str(keyword.arg): ast.unparse(keyword.value) for keyword in call.keywords}
    assert required <= set(given) <= set(run.parameters)
    arguments = {argument.arg for argument in function_of(stage).args.args}
    for name, value in given.items():
        if name.endswith("_path"):
            assert value == f"{name.removesuffix('_path')}.path"
        elif name.endswith("_paths"):
            assert value == f"[part.path for part in {name.removesuffix('_paths')}]"
        elif name == "round_key":
            assert value == "key", "the compiled interface calls it so"
        elif name == "holder":
            assert value == "driver(run_id)"
        else:
            assert value == name
            assert name in arguments


@pytest.mark.parametrize("stage", STAGES)
def test_the_component_reports_under_its_own_name_and_runs_in_its_own_image(stage: str):
    source = (ROOT / stage / "component.py").read_text("utf-8")
    assert f'image("{stage}")' in source
    assert ast.unparse(door_of(stage)).startswith(f"run_stage('{stage}', work, project_uri")


@pytest.mark.parametrize("stage", STAGES)
def test_every_artifact_is_checked_before_or_cleared_after_an_attempt(stage: str):
    """The metrics that Kubeflow shows have no file."""
    arguments = {argument.arg: ast.unparse(argument.annotation) for argument in function_of(stage).args.args}
    given = {str(keyword.arg): keyword.value for keyword in door_of(stage).keywords}
    inputs = {name for name, kind in arguments.items() if "Input[" in kind}
    outputs = {name for name, kind in arguments.items() if "Output[" in kind and "Metrics" not in kind}
    checked, cleared = given.get("inputs", ast.Dict([], [])), given.get("outputs", ast.List([]))
    assert {ast.literal_eval(key) for key in checked.keys} == inputs
    assert {ast.unparse(each).removesuffix(".path") for each in cleared.elts} == outputs


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    return next(yaml.safe_load_all(GOLDEN.read_text("utf-8")))["components"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_input_and_output_is_described_in_the_compiled_pipeline(stage: str, compiled: dict[str, Any]):
    """Kubeflow's pages and catalogues show these, artifacts that come out included."""
    component = compiled[f"comp-{stage}"]
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in ("parameters", "artifacts"):
            for name, field in component.get(side, {}).get(kind, {}).items():
                assert field.get("description", "").endswith("."), f"{stage}: {name}"
    assert component["outputDefinitions"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_page_and_the_metadata_are_the_generated_ones(stage: str):
    readme, metadata = (ROOT / stage / name for name in ("README.md", "metadata.yaml"))
    assert catalogue.readme(readme.read_text("utf-8"), stage) == readme.read_text("utf-8"), "run `make docs`"
    assert catalogue.metadata(stage) == metadata.read_text("utf-8"), "run `make docs`"
    fields = yaml.safe_load(metadata.read_text("utf-8"))
    assert fields["name"] == stage
    assert fields["image"] == image(stage)
    assert fields["stability"] in ("alpha", "beta", "stable")
    assert fields["owners"]
    assert fields["dependencies"]["kubeflow"] == [{"name": "Pipelines", "version": ">=2.17,<2.19"}]


@pytest.mark.parametrize("stage", STAGES)
def test_what_kubeflow_sees_imports_kfp_and_the_images_name_and_nothing_else(stage: str):
    """So that a catalogue can read a component without any package of ours that needs torch or S3."""
    tree = ast.parse((ROOT / stage / "component.py").read_text("utf-8"))
    found = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    assert found <= {"from kfp import dsl", "from components.images import image", "from typing import List"}
