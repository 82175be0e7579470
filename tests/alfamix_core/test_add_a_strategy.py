"""docs/add-a-strategy.md, done as a reader would do it; and the page of strategies."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alfamix_core.records import strategies_page

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-strategy.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path):
    """Runs Python with what is installed below the folder on its path."""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_the_page_leads_from_an_empty_file_to_a_green_contract(tmp_path, run):
    (project,) = blocks("toml")
    tunables, module, by_hand = blocks("python")
    (missing,) = blocks("text")
    package = tmp_path / "package"
    package.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--upgrade"]

    def installed(text: str) -> None:
        (package / "near_target.py").write_text(text, encoding="utf-8")
        done = run(*install, "--target", str(tmp_path / "site"), str(package))
        assert done.returncode == 0, done.stderr

    (package / "pyproject.toml").write_text(project, encoding="utf-8")
    (package / "near_target_tunables.py").write_text(tunables, encoding="utf-8")
    installed("")
    empty = run("-c", "from alfamix_core.acquisition import strategies; strategies.load('near_target')")
    assert empty.stderr.splitlines()[-1] == f"alfamix_core.errors.InputError: {missing.strip()}"

    installed(module)
    contract = "tests/alfamix_core/acquisition/strategies/test_contract.py"
    done = run("-m", "pytest", contract, "-k", "near_target", "-q", "-p", "no:cacheprovider", "--no-header")
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30
    done = run("-c", by_hand)
    assert done.returncode == 0, done.stderr
    words = "from alfamix_core.acquisition import registry; registry.check('near_target', {'target': 1})"
    refused = run("-c", words).stderr.splitlines()[-1]
    assert refused.endswith('strategy "near_target": target must be a number above 0 and below 1, not 1')


def test_the_page_of_strategies_is_fresh():
    assert (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8") == strategies_page.markdown(), (
        "run `make docs`"
    )
