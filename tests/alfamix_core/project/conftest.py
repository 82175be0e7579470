"""A project made of its files alone: manifests, label batches, committed rounds; no picture is ever opened."""

import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alfamix_core.project import layout, lock, models, objects, planning, rounds
from alfamix_core.project.initialise import initialise
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.champion import Champion
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.round import Counts, Outcome, Round
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import open_store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def commit(store, settings, number, at=NOON, **named):
    """Commit a round that names objects, besides those that it names already."""
    record = Round(
        number=number,
        revision=1,
        fence=1,
        run_id="run",
        state="exported",
        planned_at=at,
        seed=1,
        versions={},
        settings=settings,
        champion=Champion(),
        counts=Counts(),
        shards=1,
        digest="0" * 64,
        objects=named,
    )
    key = layout.round_file(number)
    if store.entry(key) is None:
        store.create(key, record.document())
    else:
        stored = store.read(key)
        old = Round.parse(stored.data, key)
        record = old.model_copy(update={"objects": old.objects | named, "revision": old.revision + 1})
        store.swap(key, record.document(), stored.tag)
    return record


class Made:
    """A project whose files a test adds one by one."""

    def __init__(self, store, opened):
        self.store = store
        self._opened = opened

    @property
    def settings(self):
        return Project.parse(self.store.read(layout.PROJECT).data, layout.PROJECT)

    def configure(self, **fields):
        """Edit project.json as a person would."""
        stored = self.store.read(layout.PROJECT)
        edited = Project.parse(stored.data, layout.PROJECT).model_dump(mode="json") | fields
        self.store.swap(layout.PROJECT, Project.model_validate(edited, strict=False).document(), stored.tag)

    def drop(self, name, *ids, **fields):
        """Deliver samples; the picture of ``x`` is ``files/x.png``, whichever drop delivers it."""
        self.store.create(layout.manifest(name), self.lines(*ids, **fields))

    def lines(self, *ids, **fields):
        """Return lines of a manifest."""
        return b"".join(
            ManifestLine(uri=self.store.uri_of(f"files/{key}.png"), id=key, **fields).json_line() for key in ids
        )

    def edit(self, key, change):
        """Let somebody change a file: the bytes that it has are given to a function, which returns others."""
        stored = self.store.read(key)
        self.store.swap(key, change(stored.data), stored.tag)

    def events(self, batch, *events):
        self.store.create(layout.labels(batch), b"".join(event.json_line() for event in events))

    def label(self, batch, **labels):
        """One annotator answers at noon: sample=class."""
        self.events(batch, *(self.event(f"{batch}-{key}", key, label) for key, label in labels.items()))

    def event(self, event_id, sample_id, label=None, kind="label", annotator="ann", asked_in=0, time=NOON):
        return LabelEvent(
            event_id=event_id,
            sample_id=sample_id,
            kind=kind,
            label=label,
            annotator=annotator,
            round=asked_in,
            time=time,
        )

    def questions(self, number, *ids, at=NOON):
        """Write a round's questions; return the objects that its record is to name."""
        questions = [
            Question(sample_id=key, uri=f"file:///{key}.png", round=number, rank=rank, asked_at=at)
            for rank, key in enumerate(ids)
        ]
        return {"questions": objects.write_lines(self.store, number, questions)}

    def ask(self, number, *ids, at=NOON):
        """Commit a round that asks; nobody trained anything."""
        return self.commit(number, at, **self.questions(number, *ids, at=at))

    def quarantine(self, number, *ids, at=NOON):
        """Commit a round that could not read some samples."""
        bad = [Quarantined(sample_id=key, uri=key, reason="?") for key in ids]
        return self.commit(number, at, quarantine=objects.write_lines(self.store, number, bad))

    def commit(self, number, at=NOON, **named):
        """Commit a round that names objects, besides those that it names already."""
        return commit(self.store, self.settings, number, at, **named)

    def model(self, weights):
        """Put a model into the project; return its digest."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.json").write_bytes(b"card")
            (Path(folder) / "model.safetensors").write_bytes(weights.encode())
            return models.upload(self.store, Path(folder))

    def ledger(self, now=NOON):
        """Open the ledger, with what no load has read yet; it stays open until the test ends."""
        return self._opened.enter_context(open_ledger(self.store, self.settings, now))

    def load(self, now=NOON):
        """Load the inbox as ``ingest`` does, under the lock; return what the load brought."""
        run_id = "load"
        lock.acquire(self.store, Holder(run_id=run_id), now, now + timedelta(hours=1))
        try:
            with planning.loading(self.store, self.settings, run_id, now) as ledger:
                return ledger.coming
        finally:
            lock.release(self.store, run_id)

    def states(self, now=NOON):
        """Return what is known of each sample that is not withdrawn: its state by its id."""
        rows = self.ledger(now).query("select sample_id, state from states order by sample_id").to_pylist()
        return {row["sample_id"]: row["state"] for row in rows}

    def labels(self, now=NOON):
        """Return the samples that have a label, with it."""
        rows = self.ledger(now).query("select sample_id, label from states where label is not null order by sample_id")
        return {row["sample_id"]: row["label"] for row in rows.to_pylist()}

    def pool(self, now=NOON):
        """Return the samples that may be asked about now, in order."""
        return self.ledger(now).pool({}, 0).read_all()["sample_id"].to_pylist()

    def files(self):
        """The project, byte for byte."""
        return {entry.key: self.store.read(entry.key).data for entry in self.store.list()}


@pytest.fixture
def place(tmp_path):
    """An empty folder store: for rules that do not touch what differs between stores."""
    return open_store((tmp_path / "place").as_uri())


@pytest.fixture
def opened():
    """What is open until the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def made(place, opened):
    """A project in a folder."""
    return _made(place, opened)


@pytest.fixture
def made_anywhere(store, opened):
    """A project in a folder, then on S3."""
    return _made(store, opened)


def _made(store, opened):
    initialise(store, Project(name="birds", classes=("cat", "dog", "owl"), budget=2))
    return Made(store, opened)


@pytest.fixture
def noon():
    return NOON


@pytest.fixture
def holder():
    """Make the holder of a run on a cluster: without a process."""
    return lambda run_id: Holder(run_id=run_id)


def outcome(**fields):
    return Outcome(
        **{"queries": 2, "strategy": "random", "exported_at": datetime(2026, 3, 1, 13, tzinfo=UTC), **fields}
    )


@pytest.fixture
def export(noon):
    """Let a run begin, ask the samples named and export; return the round."""

    def export(made, run_id, holder, *asked, at=noon, force=False):
        record, _ = planning.begin(made.store, holder(run_id), at, force)
        objects = made.questions(record.number, *asked, at=at)
        found = outcome(queries=len(asked))
        exported = rounds.mark_exported(made.store, record.number, run_id, found, at, objects=objects)
        lock.release(made.store, run_id)
        return exported

    return export
