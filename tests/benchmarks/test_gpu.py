"""`make gpu` needs torch and pytest alone, keeps its times, and feeds the docs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import table

ROOT = Path(__file__).parents[2]
# what a Python with torch and pytest may lack: all that this project asks for beside these two
MISSING = """pydantic hypothesis scipy sklearn skactiveml faiss boto3 botocore kfp pyarrow PIL torchvision safetensors
    prometheus_client typer rich docker duckdb deltalake psutil xdist moto alfamix_core.learning alfamix_core.records
    alfamix_core.storage""".split()


@pytest.fixture
def bare(tmp_path):
    """The environment of a process that can import none of these."""
    (tmp_path / "sitecustomize.py").write_text(f"""
from functools import partial
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = partial(lambda name, *others: None if name in {MISSING!r} else find(name, *others))
""")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def test_it_needs_torch_and_pytest_alone(bare, tmp_path):
    out = tmp_path / "results.json"
    arguments = [sys.executable, "-m", "benchmarks.gpu", "--small", "--device", "cpu", "--to", str(out)]
    run = subprocess.run(arguments, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads(out.read_text())
    assert list(results["parts"]) == list(command.SECONDS)
    assert results["parts"]["tests"]["passed"] > 5
    assert results["parts"]["tests"]["ended"] == "done"
    for name, part in results["parts"].items():
        for line in part.get("lines", []):
            assert line["seconds"] > 0, name
            assert line["products"] > 0, line
            assert line["moves"] > 0, line
    text = table.render(results)
    assert "| ALFA-Mix, scores | 3,000 x 32 K=10 |" in text


def test_every_test_of_acquisition_is_collected_without_hypothesis(bare):
    arguments = [sys.executable, "-m", "pytest", "--co", "-q", "--confcutdir", "tests/alfamix_core/acquisition"]
    bare["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    arguments += ["-p", "no:cacheprovider", "tests/alfamix_core/acquisition"]
    run = subprocess.run(arguments, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "test_any_pool_asks_the_same_however_it_is_cut[cpu-badge]" in run.stdout


def test_a_part_that_takes_too_long_is_stopped_and_keeps_its_lines(tmp_path):
    endless = "import time; print('{\"seen\": 1}', flush=True); time.sleep(60)"
    seen = []
    with pytest.raises(TimeoutError, match="stopped after 2 s"):
        seen.extend(command._lines([sys.executable, "-c", endless], 2, tmp_path / "log"))
    for line in command._lines([sys.executable, "-c", "print('{\"seen\": 2}')"], 20, tmp_path / "log"):
        seen.append(line)
    assert {"seen": 2} in seen


def test_a_part_that_fails_says_why(tmp_path):
    with pytest.raises(ChildProcessError, match=r"exit status 1: .*ZeroDivisionError"):
        list(command._lines([sys.executable, "-c", "1 / 0"], 20, tmp_path / "log"))


def test_the_page_of_benchmarks_holds_what_was_measured_last():
    text = table.PAGE.read_text()
    assert text.count(table.FIRST) == text.count(table.LAST) == 1
    assert table.page(text, table.results()) == text, "make docs"


def test_a_committed_result_is_that_of_a_gpu_and_the_page_names_every_test_that_failed_on_it():
    results = table.results()
    if results is None:
        assert "No GPU has run" in table.PAGE.read_text()
        return
    assert "cuda" in results["environment"]
    assert not results["small"]
    tests = results["parts"]["tests"]
    assert tests["passed"] > 1000
    for line in tests["failed"]:
        assert line["test"].split("[")[0] in table.PAGE.read_text()
