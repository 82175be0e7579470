"""The interface of all engines: names, what opening one costs, exit statuses, and that nobody else compares a name."""

import ast
from pathlib import Path

import pytest

from alfamix_core.errors import InputError
from alfamix_core.storage import open_store
from pipelines.engines import engine as engines
from pipelines.engines.cluster import Cluster
from pipelines.engines.engine import Ended, EngineName, Options, StageFailure
from pipelines.engines.this_machine import ThisMachine

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("text", ["magic", "", "Local", "docker "])
def test_an_unknown_name_is_one_line(text):
    with pytest.raises(InputError, match=f'--engine: must be local, docker or kubeflow, not "{text}"$'):
        EngineName.parse(text)


@pytest.mark.parametrize(
    ("name", "kind", "detached"),
    [("local", ThisMachine, False), ("docker", ThisMachine, False), ("kubeflow", Cluster, True)],
)
def test_opening_an_engine_contacts_nothing(tmp_path, monkeypatch, name, kind, detached):
    """Neither a Docker engine nor the address of an API is needed before a run is wanted."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = engines.open(EngineName.parse(name), open_store(tmp_path.as_uri()), Options(work=tmp_path))
    assert isinstance(engine, kind)
    assert engine.detached is detached


def test_on_this_machine_no_lock_waits_for_the_engine_and_nothing_is_stale(tmp_path):
    engine = engines.open(EngineName.LOCAL, open_store(tmp_path.as_uri()), Options(work=tmp_path))
    engine.check()
    assert (engine.busy(), engine.stale(), engine.free_lock()) == (False, 0, "")


def test_the_address_of_an_api_is_checked_before_the_first_run(tmp_path):
    engine = engines.open(EngineName.KUBEFLOW, open_store(tmp_path.as_uri()), Options(endpoint="ml-pipeline"))
    with pytest.raises(InputError, match="--endpoint: must be the http:// or https:// address"):
        engine.check()


def test_the_status_of_a_run_is_that_of_the_stage_that_stopped_it():
    storage, wrong = StageFailure("train", 3, "the store is away"), StageFailure("export", 2, "no")
    assert Ended(succeeded=False, failures=(storage, wrong)).status == 3
    assert Ended(succeeded=True, failures=(wrong,)).status == 2
    assert (Ended(succeeded=True).status, Ended(succeeded=False).status) == (0, 1)


NAMES = {str(name) for name in EngineName}


def compares_a_name(node: ast.AST) -> bool:
    """Return whether a piece of code compares something with the name of an engine, or matches it."""
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    else:
        return False
    constants = [part for expression in parts for part in ast.walk(expression)]
    return any(
        (isinstance(part, ast.Constant) and part.value in NAMES)
        or (isinstance(part, ast.Attribute) and part.attr in EngineName.__members__)
        for part in constants
    )


def test_only_the_interface_compares_an_engines_name():
    places = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("pipelines", "components", "alfamix_core")
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if compares_a_name(node)
    ]
    assert {place.partition(":")[0] for place in places} == {"pipelines/engines/engine.py"}, places


def test_a_comparison_with_a_name_is_found():
    for text in ('engine == "docker"', 'engine in ("local", "x")', "name is EngineName.KUBEFLOW"):
        assert any(map(compares_a_name, ast.walk(ast.parse(text))))
    assert not any(map(compares_a_name, ast.walk(ast.parse('engine == "s3"'))))
