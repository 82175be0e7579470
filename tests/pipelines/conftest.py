"""The command, run in this process on projects in folders."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alfamix_core.project import objects
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.storage import open_store
from pipelines.cli import app
from pipelines.services import schedule
from tests.alfamix_core.project.conftest import commit
from tests.servers.kubeflow import serve


@pytest.fixture(autouse=True)
def grace(monkeypatch):
    """Let no test depend on the time of the day; the test of the grace period sets it back."""
    monkeypatch.setattr(schedule, "GRACE", timedelta(0))


@pytest.fixture
def alfamix(tmp_path, monkeypatch):
    """Run the command; return its result. Nothing is written outside of the test's folder."""
    monkeypatch.setenv("ALFAMIX_WORK", str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path)

    def alfamix(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="alfamix")

    return alfamix


class Birds:
    """A project at ``birds`` and a delivery at ``new``; files are not pictures, for nothing here opens one."""

    def __init__(self, folder: Path, alfamix):
        self.folder, self.alfamix = folder, alfamix
        self.project, self.new = folder / "birds", folder / "new"
        self.new.mkdir()

    def run(self, *arguments):
        """Run a command that must succeed; return what it prints."""
        result = self.alfamix(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def files(self, *names):
        """Add files to the delivery."""
        for name in names:
            path = self.new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return self.new

    def manifest(self, *lines, name="m.jsonl"):
        """Write a manifest into the delivery; return its path."""
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (self.new / name).write_text(text, encoding="utf-8")
        return self.new / name

    def put(self, key, *lines):
        """Put lines into the project by hand."""
        path = self.project / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8"
        )
        return path

    def configure(self, **fields):
        """Edit project.json as a person would."""
        path = self.project / "project.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def ask(self, number, *ids):
        """Commit a round that asks."""
        defaults = {"round": number, "suggestion": "cat", "asked_at": datetime(2999, 1, 1, tzinfo=UTC)}
        self.commit(
            number,
            questions=[
                Question(sample_id=key, uri=f"file:///{key}.png", rank=rank, **defaults) for rank, key in enumerate(ids)
            ],
        )

    def commit(self, number, **lines):
        """Commit a round that names objects, of lines."""
        store = open_store(self.project.as_uri())
        named = {name: objects.write_lines(store, number, records) for name, records in lines.items()}
        commit(store, Project.parse((self.project / "project.json").read_bytes(), ""), number, **named)

    def tree(self):
        """Everything below the test's folder, byte for byte."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in self.folder.rglob("*")
        }


@pytest.fixture
def birds(tmp_path, alfamix):
    """A project with three classes and the samples a, b, c."""
    birds = Birds(tmp_path, alfamix)
    birds.run("init", "birds", "--classes", "cat,dog,owl", "--strategy", "random")
    birds.put("drops/first/manifest.jsonl", *({"uri": f"{key}.png", "id": key} for key in "abc"))
    return birds


@pytest.fixture
def server(monkeypatch):
    """A Kubeflow Pipelines API; nothing of this machine's own is used to reach it."""
    for name in ("ENDPOINT", "NAMESPACE", "UI_ENDPOINT", "SA_TOKEN_PATH"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
    monkeypatch.delenv("ALFAMIX_KUBEFLOW_TOKEN", raising=False)
    with serve() as server:
        yield server


@pytest.fixture
def kubeflow(server):
    from pipelines.engines.kubeflow import Kubeflow

    kubeflow = Kubeflow(server.endpoint)
    yield kubeflow
    kubeflow.client._run_api.api_client.rest_client.pool_manager.clear()


@pytest.fixture
def settings():
    """Of a project called birds."""
    return Project(name="birds", classes=("cat", "dog"))
