"""A project made of its files alone, for the stages that open no picture."""

from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.project import layout
from alfamix_core.project.initialise import initialise
from alfamix_core.records.lock import Holder, Lock
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import parse
from components.ingest import stage as ingest


class Birds:
    """A project whose runs a test starts one by one."""

    def __init__(self, uri):
        self.uri, self.store = uri, open_store(uri)
        initialise(self.store, Project(name="birds", classes=("cat", "dog"), budget=2))

    def drop(self, name, *ids, **fields):
        """Register samples in a drop."""
        lines = [ManifestLine(uri=f"{key}.png", id=key, **fields).json_line() for key in ids]
        self.store.create(layout.manifest(name), b"".join(lines))

    def ingest(self, run_id, force=False, fresh=False):
        """Run ingest for a run; return the round's key or idle."""
        return ingest.run(self.uri, Holder(run_id=run_id), force, fresh)

    def expire_lock(self):
        """Let the deadline of the run that holds the lock pass."""
        stored = self.store.read(layout.LOCK)
        lock = Lock.parse(stored.data, layout.LOCK)
        past = {"until": datetime.now(UTC) - timedelta(seconds=1), "revision": lock.revision + 1}
        self.store.swap(layout.LOCK, lock.model_copy(update=past).document(), stored.tag)

    def files(self):
        """The project, byte for byte."""
        return {entry.key: self.store.read(entry.key).data for entry in self.store.list()}


@pytest.fixture
def birds(tmp_path):
    return Birds((tmp_path / "birds").as_uri())


@pytest.fixture
def events(capsys):
    """Return the events printed since the last call."""
    where = ("time", "project", "round", "stage", "shard")

    def since() -> list[dict[str, object]]:
        found = [event for line in capsys.readouterr().out.splitlines() if (event := parse(line))]
        return [{name: value for name, value in event.items() if name not in where} for event in found]

    return since
