"""The ledger equals its slow twin after every step of random histories: loads, plans, commits, changed settings.

The short form runs with all tests, the long form with `make faults`.
"""

import json
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alfamix_core.project import layout, lock, objects, planning, rounds
from alfamix_core.project.inbox import reading
from alfamix_core.project.initialise import initialise
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.round import Outcome, Round
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import Store, file_uri, open_store, path_of
from tests.twin.compare import disagreements
from tests.twin.formats import Settings
from tests.twin.history import History

FEW = settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["a", "b", "c", "d", "e", "f"]
MANIFESTS = [f"drops/{name}/manifest.jsonl" for name in ("one", "two", "Zoo")]
BATCHES = ["labels/x.jsonl", "labels/y.jsonl", "labels/sub/ann's answers.jsonl"]
KEYS = [*MANIFESTS, *BATCHES, "withdrawn/w.jsonl", "released/r.jsonl"]
JUNK = [b"{", b"[]", b'{"uri": "a.png"} {"uri": "b.png"}', b"\xff", b'"text"', b'{"sample_id": "a"}', b"null"]


def moments() -> st.SearchStrategy[str]:
    """Times of events: few, so that some are equal, and some in the future, in two spellings."""
    hours = st.integers(0, 12).map(lambda step: DAY_0 + timedelta(hours=6 * step)) | st.just(DAY_0.replace(year=2031))
    return hours.flatmap(lambda time: st.sampled_from([time.isoformat(), time.isoformat().replace("+00:00", "Z")]))


def manifest_lines() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"id": st.sampled_from(NAMES)},
        optional={
            "label": st.sampled_from(["cat", "dog", None, "cow"]),
            "split": st.sampled_from(["train", "val", "test", None]),
            "group": st.sampled_from(["g", None]),
            "uri": st.sampled_from(["file:///data/a.png", "x.png", "file:///data/b.png"]),
        },
    ).map(lambda line: {"uri": f"file:///data/{line['id']}.png", **line})


def events() -> st.SearchStrategy[dict[str, Any]]:
    answer = st.sampled_from(["cat", "dog", "owl", "cat", "cow", "skip", "cannot_label", "withdraw"])
    return st.builds(
        lambda answer, **fields: {
            **fields,
            **({"kind": answer} if len(answer) > 3 else {"kind": "label", "label": answer}),
        },
        answer,
        event_id=st.sampled_from(["1", "2", "10", "e"]),
        sample_id=st.sampled_from([*NAMES[:3], *NAMES]),
        annotator=st.sampled_from(["ann", "bob", "eve"]),
        round=st.sampled_from([0, 1, 2]),
        time=moments(),
    )


def corrections(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"sample_id": st.sampled_from(NAMES), "time": moments(), **fields})


def lines_for(key: str) -> st.SearchStrategy[list[bytes]]:
    kinds = {"drops": manifest_lines(), "labels": events()}
    kinds |= {"withdrawn": corrections(), "released": corrections(round=st.integers(1, 3))}
    good = kinds[key.split("/")[0]].map(lambda line: json.dumps(line).encode())
    bad = st.sampled_from(JUNK)
    return st.lists(good, max_size=6) | st.lists(st.one_of(*[good] * 9, bad), max_size=4)


def changes() -> st.SearchStrategy[tuple[Any, ...]]:
    """A change of a file of the inbox."""
    keys = st.sampled_from([*KEYS, *MANIFESTS, *BATCHES])
    content = keys.flatmap(lambda key: st.tuples(st.just(key), lines_for(key)))
    return st.one_of(
        content.map(lambda pair: ("write", *pair)),
        content.map(lambda pair: ("append", *pair)),
        st.tuples(st.just("cut"), keys, st.sampled_from([0.0, 0.4, 0.8, 0.97])),
        st.tuples(st.just("delete"), keys),
    )


def choices() -> st.SearchStrategy[dict[str, Any]]:
    """Settings that a person writes into project.json."""
    return st.fixed_dictionaries(
        {},
        optional={
            "answers": st.integers(1, 3),
            "agreement": st.integers(0, 3),
            "max_answers": st.integers(3, 4),
            "accept_unasked": st.booleans(),
            "share": st.sampled_from([0.0, 0.5]),
            "expires_after_days": st.sampled_from([0.5, 30.0]),
            "cow": st.just(True),
            "prefix": st.sampled_from(["file:///data", "file:///other"]),
        },
    )


def asked() -> st.SearchStrategy[list[tuple[str, bool]]]:
    return st.lists(st.tuples(st.sampled_from([*NAMES, "unknown"]), st.booleans()), max_size=4)


def steps() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    later = st.sampled_from([0, 1, 5, 24, 24 * 31, -3])
    return st.lists(
        st.one_of(
            changes(),
            changes(),
            changes(),
            changes(),
            st.tuples(st.just("load"), later),
            st.tuples(st.just("load"), later),
            st.tuples(st.just("settings"), choices()),
            st.tuples(
                st.just("round"), later, st.just("export"), asked(), st.lists(st.sampled_from(NAMES), max_size=2)
            ),
            st.tuples(st.just("round"), later, st.just("abandon")),
        ),
        min_size=6,
        max_size=24,
    )


@dataclass
class Both:
    """A project and its twin, to which the same things happen."""

    store: Store
    now: datetime = DAY_0 + timedelta(days=1)
    wanted: dict[str, Any] = field(default_factory=dict)
    history: History = field(init=False)
    planned: dict[int, Round] = field(default_factory=dict)

    def __post_init__(self):
        self.history = History(self.store.uri)
        initialise(self.store, self._project())

    def _project(self) -> Project:
        wanted = self.wanted
        queue = {
            name: wanted[name]
            for name in ("answers", "agreement", "max_answers", "accept_unasked", "expires_after_days")
            if name in wanted
        }
        fields = {
            "name": "twin",
            "classes": ["cat", "dog", "owl", *(["cow"] if wanted.get("cow") else [])],
            "data_prefixes": [wanted.get("prefix", "file:///data")],
            "queue": queue,
            "audit": {"share": wanted.get("share", 0.0)},
            "seed": 7,
        }
        return Project.parse(json.dumps(fields), "project")

    @property
    def settings(self) -> Settings:
        return Settings.of(json.loads(self.store.read(layout.PROJECT).data))

    @property
    def inbox(self) -> dict[str, bytes]:
        root = path_of(self.store.uri)
        return {key: (root / key).read_bytes() for key in KEYS if (root / key).exists()}

    def do(self, what: str, *details: Any) -> None:
        getattr(self, f"_{what}")(*details)

    def _write(self, key: str, lines: list[bytes]) -> None:
        self._put(key, b"".join(line + b"\n" for line in lines))

    def _append(self, key: str, lines: list[bytes]) -> None:
        self._put(key, self.inbox.get(key, b"") + b"\n".join(lines))

    def _cut(self, key: str, share: float) -> None:
        data = self.inbox.get(key, b"")
        self._put(key, data[: int(share * len(data))])

    def _put(self, key: str, data: bytes) -> None:
        path = path_of(self.store.uri) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(path)  # another inode, so that the change shows whatever the clock's grain

    def _delete(self, key: str) -> None:
        (path_of(self.store.uri) / key).unlink(missing_ok=True)

    def _settings(self, wanted: dict[str, Any]) -> None:
        if self.wanted.get("cow"):
            wanted = {**wanted, "cow": True}  # classes are only added
        self.wanted = wanted
        stored = self.store.read(layout.PROJECT)
        self.store.swap(layout.PROJECT, self._project().document(), stored.tag)

    def _load(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        self.history.load(self.now, self.inbox, self.settings)
        with open_ledger(self.store, rounds.read_settings(self.store), self.now) as ledger:
            self._check(ledger, "before the load")
            ledger.commit(self.store)
        with open_ledger(self.store, rounds.read_settings(self.store), self.now) as ledger:
            assert not ledger.unread, "what was loaded is not loaded again"
            self._check(ledger, "after the load")

    def _round(self, hours: int, end: str, chosen: list[tuple[str, bool]] = (), bad: list[str] = ()) -> None:
        self._load(hours)
        if not self.history.state(self.now, self.settings).samples:
            return
        run_id = f"run-{len(self.planned)}"
        record, _ = planning.begin(self.store, Holder(run_id=run_id), self.now, force=True)
        assert record is not None
        self.planned[record.number] = record
        self.history.plan(record.number)
        if end == "abandon":
            lock.release(self.store, run_id)
            rounds.abandon(self.store, "no", self.now)
            self.history.abandon(record.number)
            del self.planned[record.number]
        else:
            self._export(record, run_id, chosen, bad)
        self._load(0)

    def _export(self, record: Round, run_id: str, chosen: list[tuple[str, bool]], bad: list[str]) -> None:
        questions = [
            Question(sample_id=name, uri="", round=record.number, rank=rank, audit=audit, asked_at=record.planned_at)
            for rank, (name, audit) in enumerate(chosen)
        ]
        names = {"questions": objects.write_lines(self.store, record.number, questions)}
        if bad:
            unreadable = [Quarantined(sample_id=name, uri="", reason="empty file") for name in bad]
            names["quarantine"] = objects.write_lines(self.store, record.number, unreadable)
        outcome = Outcome(queries=len(questions), strategy="random", exported_at=self.now)
        rounds.mark_exported(self.store, record.number, run_id, outcome, self.now, objects=names)
        lock.release(self.store, run_id)
        questions = [{"sample_id": name, "rank": rank, "audit": audit} for rank, (name, audit) in enumerate(chosen)]
        self.history.commit(record.number, record.planned_at, questions, bad)

    def _check(self, ledger: Any, when: str) -> None:
        problems = disagreements(ledger, self.history, self.now, self.settings)
        for number, record in self.planned.items():
            for what, has, twins in (
                ("labels", ledger.new_labels(record.versions), self.history.new_labels(number, self.settings)),
                ("samples", ledger.new_samples(record.versions), self.history.new_samples(number)),
            ):
                if has != len(twins):
                    problems.append(f"new {what} since round {number}: the ledger has {has}, the twin {sorted(twins)}")
        assert not problems, "\n".join([when, *problems])


def play(story: list[tuple[Any, ...]]) -> None:
    """Let the same things happen to a project and its twin; they must agree after each load."""
    with tempfile.TemporaryDirectory(prefix="alfamix-twin-") as folder:
        both = Both(open_store(file_uri(Path(folder) / "project")))
        for step in story:
            both.do(*step)
        both.do("load", 1)
        both.store.close()


def test_the_ledger_equals_its_twin_after_every_step():
    FEW(given(steps())(play))()


def test_the_ledger_equals_its_twin_where_files_are_read_by_columns(monkeypatch: pytest.MonkeyPatch):
    """Only large files are read so; here all are."""
    monkeypatch.setattr(reading, "_WORTH_BYTES", 0)
    FEW(given(steps())(play))()


@pytest.mark.faults
@pytest.mark.parametrize("worth", [0, reading._WORTH_BYTES])
def test_the_ledger_equals_its_twin_after_every_step_of_many_histories(worth: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "_WORTH_BYTES", worth)
    MANY(given(steps())(play))()
