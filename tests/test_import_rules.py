"""Who may import whom: the floors of the library, and the walls between components and pipelines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = "errors telemetry acquisition storage records evaluation learning choosing project queues reports".split()
TORCH = ("torch", "torchvision", "safetensors")
LIGHT_STAGES = ("ingest", "snapshot", "export", "finish")
# below these floors torch is at home; records of tensors are read and written with it
TORCH_FILES = (
    *("acquisition/", "learning/", "choosing/", "library.py", "records/features.py", "records/scores.py"),
    *("evaluation/metrics.py", "evaluation/calibration.py", "evaluation/drift.py", "evaluation/plane.py"),
)


def imports(source: str) -> list[str]:
    """Return the names of all modules that a source imports, at any depth; a relative import is reported as '.'."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." if node.level else str(node.module)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def broken_rules(path: str, source: str) -> list[str]:
    """Return the rules that a file breaks, in words.

    Args:
        path: of the file, relative to the repository.
        source: its text.
    """
    room, *rest = path.split("/")
    broken = []
    for name in imports(source):
        parts = name.split(".")
        if room == "alfamix_core":
            floor = rest[0].removesuffix(".py")
            if parts[0] in ("kfp", "components", "pipelines"):
                broken.append(f"{path} imports {name}: the library knows neither kfp nor who uses it")
            above = parts[1] if parts[0] == "alfamix_core" and len(parts) > 1 else ""
            if above in FLOORS and floor in FLOORS and FLOORS.index(above) > FLOORS.index(floor):
                broken.append(f"{path} imports {name}: {above} is a floor below {floor}")
            if (
                floor == "acquisition"
                and parts[0] == "alfamix_core"
                and parts[1:2] not in ([], ["acquisition"], ["errors"])
            ):
                broken.append(f"{path} imports {name}: acquisition is pure numerics")
            if parts[0] in TORCH and not "/".join(rest).startswith(TORCH_FILES):
                broken.append(f"{path} imports {name}: this floor is in the image without torch")
        if room == "components" and rest[-1] == "stage.py":
            if parts[0] == "kfp":
                broken.append(f"{path} imports {name}: a stage knows no kfp")
            if parts[0] == "components" and parts[1:2] != [rest[0]]:
                broken.append(f"{path} imports {name}: a stage imports no other component")
            if rest[0] in LIGHT_STAGES and name.startswith(
                (*TORCH, "alfamix_core.acquisition", "alfamix_core.learning", "alfamix_core.choosing")
            ):
                broken.append(f"{path} imports {name}: this stage's image has no torch")
        inside = room == "pipelines" and parts[0] == "components" and len(parts) > 2 and parts[1] != "images"
        if inside and parts[2] != "component":
            broken.append(f"{path} imports {name}: pipelines see of a component its component.py alone")
        if parts[0] == "":
            broken.append(f"{path}: relative import")
    return broken


def test_no_file_breaks_a_rule():
    files = [path for room in ("alfamix_core", "components", "pipelines") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 60
    broken = [rule for path in files for rule in broken_rules(str(path.relative_to(ROOT)), path.read_text("utf-8"))]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("alfamix_core/records/x.py", "import kfp"),
        ("alfamix_core/storage/x.py", "from alfamix_core.project import rounds"),
        ("alfamix_core/learning/x.py", "from alfamix_core.choosing import decision"),
        ("alfamix_core/evaluation/x.py", "from alfamix_core.learning import device"),
        ("alfamix_core/acquisition/x.py", "from alfamix_core.telemetry import events"),
        ("alfamix_core/project/x.py", "def f():\n    import torch"),
        ("components/train/stage.py", "from components.embed import stage"),
        ("components/train/stage.py", "from kfp import dsl"),
        ("components/export/stage.py", "from alfamix_core.learning import device"),
        ("components/export/stage.py", "from alfamix_core.choosing import decision"),
        ("pipelines/x.py", "from components.train.stage import run"),
    ],
)
def test_a_rule_broken_on_purpose_is_found(path: str, source: str):
    assert broken_rules(path, source)
