"""Who may import whom: the floors of the library, and the walls between components and pipelines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.stages import STAGES

ROOT = Path(__file__).parent.parent
FLOORS = (
    *("errors", "arrays", "telemetry", "acquisition", "library", "storage", "records"),
    *("evaluation", "learning", "choosing", "project", "queues", "reports"),
)
PIPELINES = ("the pipeline", "engines", "services", "cli")
TORCH = ("torch", "torchvision", "safetensors")
HEAVY = (*TORCH, "alfamix_core.acquisition", "alfamix_core.learning", "alfamix_core.choosing")
SHARED, USED = ("options.py", "printing.py"), ("options", "printing")  # what all groups of commands share
# torch may be imported here: these rooms compute on tensors, or read and write them
TORCH_FILES = (
    *("acquisition/", "learning/", "choosing/", "arrays.py", "library.py", "records/features.py", "records/scores.py"),
    *("evaluation/metrics.py", "evaluation/calibration.py", "evaluation/drift.py", "evaluation/plane.py"),
)


def imports(source: str, *, types: bool = True) -> list[str]:
    """Return the names of all modules that a source imports, at any depth; a relative import is reported as '.'.

    Without ``types``, the imports of ``if TYPE_CHECKING:`` are left out, because nothing imports them at run time.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." if node.level else str(node.module)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def broken_rules(path: str, source: str) -> list[str]:
    """Return one line for each rule that a file breaks.

    Args:
        path: path relative to the repository.
        source: content of the file.
    """
    room, *rest = path.split("/")
    rules = {"alfamix_core": of_the_library, "components": of_a_component, "pipelines": of_the_pipelines}[room]
    names, at_run_time = imports(source), set(imports(source, types=False))
    broken = [f"{path} imports {name}: {why}" for name in names for why in rules(rest, name.split("."))]
    broken += [f"{path}: relative import" for name in names if name.startswith(".")]
    if room == "alfamix_core" and not "/".join(rest).startswith(TORCH_FILES):
        heavy = [name for name in names if name in at_run_time and name.split(".")[0] in TORCH]
        broken += [f"{path} imports {name}: this file is in the image without torch" for name in heavy]
    return broken


def of_the_library(rest: list[str], name: list[str]) -> Iterator[str]:
    """Yield why a file of alfamix_core may not import a module."""
    floor, ours = rest[0].removesuffix(".py"), name[0] == "alfamix_core"
    other = name[1] if ours and len(name) > 1 else ""
    if name[0] in ("kfp", "components", "pipelines"):
        yield "the library knows neither kfp nor its users"
    if other in FLOORS and floor in FLOORS and FLOORS.index(other) > FLOORS.index(floor):
        yield f"{other} comes after {floor} in the list of floors"
    if floor == "acquisition" and ours and name[1:2] not in ([], ["acquisition"], ["errors"]):
        yield "acquisition is pure numerics"


def of_a_component(rest: list[str], name: list[str]) -> Iterator[str]:
    """Yield why a file of components may not import a module; only a stage.py has rules."""
    if rest[-1] != "stage.py":
        return
    if name[0] == "kfp":
        yield "a stage knows no kfp"
    if name[0] == "components" and name[1:2] != [rest[0]]:
        yield "a stage imports no other component"
    if STAGES[rest[0]].runtime == "small" and ".".join(name).startswith(HEAVY):
        yield "this stage's image has no torch"


def of_the_pipelines(rest: list[str], name: list[str]) -> Iterator[str]:
    """Yield why a file of pipelines may not import a module."""
    if name[0] == "components" and len(name) > 2 and name[1] not in ("images", "stages") and name[2] != "component":
        yield "pipelines see nothing of a component except its component.py"
    if name[0] == "pipelines" and len(name) > 1:
        floor, other = (room if room in PIPELINES else PIPELINES[0] for room in (rest[0], name[1]))
        if PIPELINES.index(other) > PIPELINES.index(floor):
            yield f"{floor} is below {other}"
        if rest[0] == "cli" and rest[-1] in SHARED and name[1] == "cli" and name[2:3] not in ([], *[[x] for x in USED]):
            yield "what all commands share imports no command"


def test_no_file_breaks_a_rule():
    files = [path for room in ("alfamix_core", "components", "pipelines") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 60
    rooms = {path.stem for path in (ROOT / "alfamix_core").iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__init__", "__pycache__"} == set(FLOORS), "every room of the library has its floor"
    broken = [rule for path in files for rule in broken_rules(str(path.relative_to(ROOT)), path.read_text("utf-8"))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("alfamix_core/records/x.py", "import kfp"),
        ("alfamix_core/storage/x.py", "from alfamix_core.project import rounds"),
        ("alfamix_core/learning/x.py", "from alfamix_core.choosing import decision"),
        ("alfamix_core/arrays.py", "from alfamix_core.acquisition import types"),
        ("alfamix_core/library.py", "from alfamix_core.records.project import Project"),
        ("alfamix_core/evaluation/x.py", "from alfamix_core.learning import device"),
        ("alfamix_core/acquisition/x.py", "from alfamix_core.telemetry import events"),
        ("alfamix_core/project/x.py", "def f():\n    import torch"),
        ("components/train/stage.py", "from components.embed import stage"),
        ("components/train/stage.py", "from kfp import dsl"),
        ("components/export/stage.py", "from alfamix_core.learning import device"),
        ("components/export/stage.py", "from alfamix_core.choosing import decision"),
        ("pipelines/x.py", "from components.train.stage import run"),
        ("pipelines/round.py", "from pipelines.engines import local"),
        ("pipelines/engines/x.py", "def f():\n    from pipelines.services.cron import Cron"),
        ("pipelines/services/x.py", "import pipelines.cli.round"),
        ("pipelines/cli/printing.py", "from pipelines.cli.round import run"),
        ("alfamix_core/records/x.py", "from . import record"),
    ],
)
def test_a_rule_broken_on_purpose_is_found(path: str, source: str):
    assert broken_rules(path, source)
