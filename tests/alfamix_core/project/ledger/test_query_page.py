"""What docs/query-your-project.md says about reading the tables with other tools is run as it stands there."""

import re
from pathlib import Path

import pytest

from alfamix_core.project import planning
from alfamix_core.project.initialise import initialise
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project
from alfamix_core.records.tables import SCHEMAS
from alfamix_core.storage import open_store

PAGE = (Path(__file__).parents[4] / "docs" / "query-your-project.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def birds(tmp_path, noon, monkeypatch):
    store = open_store((tmp_path / "birds").as_uri())
    initialise(store, Project(name="birds", classes=("cat", "dog")))
    store.create("drops/a/manifest.jsonl", b'{"uri": "x.png", "label": "cat"}\n{"uri": "y.png"}\n')
    event = '{"event_id": "1", "sample_id": "s", "kind": "skip", "annotator": "ann", "time": "2026-03-01T10:00:00Z"}\n'
    store.create("labels/a.jsonl", event.encode())
    planning.begin(store, Holder(run_id="run"), noon)
    monkeypatch.chdir(tmp_path)
    return store


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("DuckDB", r"ann +│ +2026-03-01 +│ +1"),
        ("Polars", r"drops/a/manifest\.jsonl +┆ +2 +┆ +1"),
        ("States by the rules", r"pool +│ +train +│ +1|pool\W+labelled|state: string"),
    ],
)
def test_the_page_reads_a_project(birds, capsys, tool, expected):
    code = BLOCKS[tool].replace("file:///data/birds", birds.uri)
    exec(compile(code, f"docs/query-your-project.md, {tool}", "exec"), {})
    assert re.search(expected, capsys.readouterr().out)


def test_the_page_names_every_table():
    for name in SCHEMAS:
        assert f"`{name}`" in PAGE
