"""Segments: what was read once is read as tables, and nothing else changes."""

import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alfamix_core.project.samples import Sample
from alfamix_core.records.segment import CARD_FILE
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project import consensus, layout, objects, rounds, segments
from alfamix_core.project.ledger import audit_place, derive, freeze
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import open_store
from tests.alfamix_core.project.conftest import commit

CLASSES = ("cat", "dog", "owl")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def put(store, project, key, content):
    """Write a file; of what a round produced, the object too that its record names, which the slow twin ignores."""
    store.create(key, content)
    folder, _, name = key.partition("/")
    if folder in ("queue", "quarantine"):
        number = int(Path(name).stem)
        digest = objects.write(store, number, content)
        commit(store, project, number, **{{"queue": "questions"}.get(folder, folder): digest})


def slow_ledger(store, project, now):
    """The ledger by obvious loops over all files, as plain values."""

    def lines(kind, key):
        return [kind.parse(line, key) for line in store.read(key).data.splitlines()]

    def files(prefix):
        return [entry.key for entry in store.list(prefix)]

    samples, repeated = {}, 0
    for drop in sorted(store.folders("drops")):
        for line in lines(ManifestLine, f"drops/{drop}/manifest.jsonl"):
            sample = Sample(line.id, line.uri, line.label, line.split or "train", line.group)
            repeated += line.id in samples
            samples.setdefault(line.id, sample)
    events, about, unknown = {}, defaultdict(list), 0
    for key in files("labels"):
        for event in lines(LabelEvent, key):
            events.setdefault(event.event_id, event)
    for event in events.values():
        about[event.sample_id].append(event)
        unknown += event.sample_id not in samples
    withdrawn = {line.sample_id for key in files("withdrawn") for line in lines(Withdrawn, key)} & samples.keys()
    quarantined, questions, asked = {}, [], {}
    for key in files("quarantine"):
        for bad in lines(Quarantined, key):
            quarantined[bad.sample_id] = int(Path(key).stem)
    for key in files("released"):
        for line in lines(Released, key):
            if quarantined.get(line.sample_id, line.round + 1) <= line.round:
                del quarantined[line.sample_id]
    verdicts = {
        key: consensus.verdict(found, project.queue)
        for key, found in about.items()
        if key in samples and key not in withdrawn
    }
    known = len(events) - unknown
    samples = {key: sample for key, sample in samples.items() if key not in withdrawn}

    def undecided(key):
        decided = key in verdicts and verdicts[key].state != "open"
        return samples[key].label is None and not decided and key not in quarantined

    open_queries = {}
    for key in files("queue"):
        for question in lines(Question, key):
            questions.append(question)
            asked[question.sample_id] = question.audit
            if now < question.asked_at + timedelta(days=project.queue.expires_after_days):
                open_queries[question.sample_id] = question
    open_queries = {key: each for key, each in open_queries.items() if key in samples and undecided(key)}
    for key, sample in samples.items():
        aside = asked.get(key, audit_place(project.seed, key) < project.audit.share)
        if aside and sample.split == "train":
            samples[key] = replace(sample, split="audit")
    return {
        "samples": samples,
        "verdicts": verdicts,
        "open": open_queries,
        "quarantined": set(quarantined),
        "repeated": repeated,
        "events": known,
        "withdrawn": withdrawn,
        "unknown": unknown,
        "pool": [k for k in sorted(samples) if samples[k].split == "train" and undecided(k) and k not in open_queries],
    }


def fast_ledger(store, project, now):
    ledger = derive(store, project, freeze(store), now)
    counts = ledger.counts()
    states = counts.model_dump()
    assert states.pop("samples") == sum(states.values())
    assert counts.pool == len(ledger.pool())
    labels = {key: ledger.label(sample) for key, sample in ledger.samples.items()}
    labels = {key: name for key, name in sorted(labels.items()) if name is not None and key not in ledger.quarantined}
    found = ledger.labelled(CLASSES)
    assert dict(zip(found["sample_id"].to_pylist(), found["label"].to_pylist(), strict=True)) == {
        key: CLASSES.index(name) for key, name in labels.items()
    }
    return {
        "samples": dict(ledger.samples),
        "verdicts": ledger.verdicts,
        "open": ledger.open_queries,
        "quarantined": ledger.quarantined,
        "repeated": ledger.repeated,
        "events": ledger.label_events,
        "withdrawn": set(ledger.withdrawn),
        "unknown": ledger.unknown,
        "pool": ledger.pool()["sample_id"].to_pylist(),
    }


IDS = st.sampled_from("abcdefgh")
MAYBE_CLASS = st.sampled_from([None, *CLASSES])
NAMES = st.sampled_from(["a", "a-b", "a.b", "b", "B", "z"])
DAYS = st.integers(0, 40)


@st.composite
def project_files(draw):
    """Yield (key, bytes) of a few files of every kind."""
    when = st.builds(lambda days: NOON - timedelta(days=days), DAYS)

    def lines(*fields):
        return draw(st.lists(st.tuples(*fields), min_size=1, max_size=6))

    files = {}
    for name in draw(st.sets(NAMES, max_size=4)):
        text = b"".join(
            ManifestLine(uri=f"s3://pictures/{key}", id=key, label=label, split=split, group=group).json_line()
            for key, label, split, group in lines(
                IDS, MAYBE_CLASS, st.sampled_from([None, "val", "test"]), st.sampled_from([None, "g"])
            )
        )
        files[layout.manifest(name)] = text
    for name in draw(st.sets(NAMES, max_size=4)):
        text = b"".join(
            LabelEvent(
                event_id=event_id,
                sample_id=key,
                kind=kind,
                label=label if kind == "label" else None,
                annotator=annotator,
                time=time,
                round=asked,
            ).json_line()
            for event_id, key, kind, label, annotator, time, asked in lines(
                st.sampled_from([*map(str, range(12))]),
                st.sampled_from("abcdefghx"),
                st.sampled_from(["label", "label", "label", "skip", "cannot_label", "withdraw"]),
                st.sampled_from(CLASSES),
                st.sampled_from("xyz"),
                when,
                st.integers(0, 3),
            )
        )
        files[layout.labels(name)] = text
    for number in draw(st.sets(st.integers(1, 4), max_size=3)):
        text = b"".join(
            Question(sample_id=key, uri=key, round=number, rank=0, asked_at=at, audit=audit).json_line()
            for key, at, audit in lines(IDS, when, st.booleans())
        )
        files[f"queue/{number:06d}.jsonl"] = text
    for number in draw(st.sets(st.integers(1, 4), max_size=2)):
        bad = [Quarantined(sample_id=key, uri=key, reason="?") for (key,) in lines(IDS)]
        files[f"quarantine/{number:06d}.jsonl"] = b"".join(line.json_line() for line in bad)
    for name in draw(st.sets(NAMES, max_size=1)):
        free = [Released(sample_id=key, round=up_to, time=NOON) for key, up_to in lines(IDS, st.integers(1, 4))]
        files[layout.released(name)] = b"".join(line.json_line() for line in free)
        gone = [Withdrawn(sample_id=key, time=NOON) for (key,) in lines(IDS)]
        files[layout.withdrawn(name)] = b"".join(line.json_line() for line in gone)
    return draw(st.permutations(sorted(files.items())))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_segments_or_none_in_any_order_of_arrival_the_ledger_is_that_of_the_obvious_loops(data):
    files = data.draw(project_files())
    queue = data.draw(
        st.sampled_from([{}, {"answers": 2}, {"agreement": 2}, {"agreement": 1}, {"expires_after_days": 3}])
    )
    project = Project(
        name="p",
        classes=CLASSES,
        data_prefixes=("s3://pictures",),
        queue=queue,
        audit={"share": data.draw(st.sampled_from([0.0, 0.5]))},
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(files)), max_size=2)))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "WORTH_LINES", 1)
        store = open_store(Path(folder).as_uri())
        for place, (key, content) in enumerate([*files, (None, None)]):
            for _ in range(cuts.count(place)):
                inputs = freeze(store)
                segments.compact(store, inputs, derive(store, project, inputs, NOON).fresh)
            if key is not None:
                put(store, project, key, content)
        assert fast_ledger(store, project, NOON) == slow_ledger(store, project, NOON)


@pytest.fixture
def compacted(made, monkeypatch, noon):
    """A project whose files are all covered by a segment."""
    made.drop("a", "b", "c", "d", label="cat")
    made.drop("b", "e", "f")
    made.label("1", e="dog")
    monkeypatch.setattr(segments, "WORTH_LINES", 1)
    inputs = freeze(made.store)
    segments.compact(made.store, inputs, derive(made.store, made.settings, inputs, noon).fresh)
    return made


def test_a_covered_file_is_not_read_again(compacted, noon):
    (item,) = freeze(compacted.store)
    before = compacted.ledger().counts()
    for key in ("drops/a/manifest.jsonl", "labels/1.jsonl"):
        compacted.store.delete(key)
    assert derive(compacted.store, compacted.settings, [item], noon).counts() == before


def test_what_is_new_is_read_beside_the_segment(compacted):
    compacted.drop("c", "g")
    compacted.label("2", f="owl")
    assert [item.key.split("/")[0] for item in freeze(compacted.store)] == ["ledger", "drops", "labels"]
    counts = compacted.ledger().counts()
    assert (counts.samples, counts.train, counts.pool) == (6, 5, 1)


def test_a_covered_file_of_another_size_or_a_missing_one_is_refused(compacted):
    stored = compacted.store.read("labels/1.jsonl")
    compacted.store.swap("labels/1.jsonl", stored.data + b"\n", stored.tag)
    with pytest.raises(InputError, match=r"^labels/1.jsonl is not what it was when it was first used; put it back$"):
        freeze(compacted.store)
    compacted.store.delete("labels/1.jsonl")
    with pytest.raises(InputError, match=r"^labels/1.jsonl was used before and is gone; put it back$"):
        freeze(compacted.store)


def test_a_class_that_was_removed_is_refused_with_the_line_that_names_it(compacted):
    compacted.configure(classes=["cat", "owl"])
    with pytest.raises(InputError, match=r'^labels/1.jsonl line 1: label "dog" is not a class; the classes are cat'):
        compacted.ledger()


def test_a_prefix_that_was_removed_is_refused_with_the_line_below_it(made, noon, monkeypatch):
    monkeypatch.setattr(segments, "WORTH_LINES", 1)
    made.configure(data_prefixes=["s3://pictures"])
    made.store.create(layout.manifest("a"), b'{"uri": "files/a.png"}\n{"uri": "s3://pictures/b.png"}\n')
    inputs = freeze(made.store)
    segments.compact(made.store, inputs, made.ledger().fresh)
    made.configure(data_prefixes=["s3://others"])
    with pytest.raises(InputError, match=r'^drops/a/manifest.jsonl line 2: uri "s3://pictures/b.png" must be relative'):
        made.ledger()


def test_a_damaged_segment_is_refused_and_a_deleted_one_is_done_without(compacted):
    before = compacted.ledger().counts()
    (name,) = compacted.store.folders(layout.LEDGER)
    key = layout.segment(name) + "samples.parquet"
    stored = compacted.store.read(key)
    compacted.store.swap(key, stored.data[:-1] + b"?", stored.tag)
    with pytest.raises(InputError, match=r"samples.parquet is not what was written; put it back"):
        compacted.ledger()
    for entry in list(compacted.store.list(layout.LEDGER)):
        compacted.store.delete(entry.key)
    assert compacted.ledger().counts() == before


def test_a_segment_whose_writer_was_killed_is_not_used_and_finished_by_the_next(compacted, noon):
    inputs = freeze(compacted.store)
    (name,) = compacted.store.folders(layout.LEDGER)
    compacted.store.delete(layout.segment(name) + CARD_FILE)
    raw = freeze(compacted.store)
    assert not any(item.key.startswith(layout.LEDGER) for item in raw)
    assert segments.compact(compacted.store, raw, compacted.ledger().fresh) == inputs


def test_a_copied_project_makes_its_segments_anew(compacted, tmp_path):
    other = open_store((tmp_path / "copy").as_uri())
    for key, data in compacted.files().items():
        other.create(key, data)
    assert [item.key.split("/")[0] for item in freeze(other)] == ["drops", "drops", "labels"]


def test_a_large_project_is_compacted_when_a_round_is_planned(made_anywhere, holder, noon, monkeypatch):
    made = made_anywhere
    monkeypatch.setattr(segments, "WORTH_FILES", 3)
    for name in "abc":
        made.drop(name, f"{name}1", f"{name}2")
    record, _ = rounds.begin(made.store, holder("run-1"), noon)
    (item,) = record.inputs
    assert item.key.startswith("ledger/")
    assert rounds.ledger_of(made.store, record).counts() == record.counts
    made.store.delete(layout.round_file(1))
    assert freeze(made.store) == record.inputs


def test_events_about_samples_that_no_drop_has_delivered_wait_for_them(made):
    made.drop("a", "b")
    made.label("1", c="cat")
    assert (made.ledger().unknown, made.ledger().label_events) == (1, 0)
    made.drop("b", "c")
    assert (made.ledger().unknown, made.ledger().counts().train) == (0, 1)


def test_moments_before_1970_and_in_other_time_zones_are_ordered_as_moments(made):
    made.drop("a", "b")
    event = json.loads(made.event("old", "b", "cat").json_line())
    late = event | {"event_id": "x", "label": "dog", "time": "0001-01-01T00:00:00+14:00"}
    made.store.create(layout.labels("1"), b"".join(json.dumps(line).encode() + b"\n" for line in (late, event)))
    assert made.ledger().verdicts["b"].label == "cat"


WORDS = st.sampled_from(
    [
        *(
            "sample_id",
            "b",
            "event_id",
            "e",
            "kind",
            "label",
            "skip",
            "cat",
            "annotator",
            "ann",
            "round",
            "time",
            "uri",
        ),
        *("id", "split", "reason", "asked_at", "rank", "2026-03-01T12:00:00Z", "0001-01-01T00:00:00+14:00", "\ud800"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
VALID = st.sampled_from(
    [
        {"uri": "a.png", "id": "b"},
        {
            "event_id": "e",
            "sample_id": "b",
            "kind": "label",
            "label": "cat",
            "annotator": "a",
            "time": "2026-03-01T00:00Z",
        },
        {"sample_id": "b", "uri": "b", "round": 1, "rank": 0, "asked_at": "2026-03-01T12:00:00Z"},
        {"sample_id": "b", "uri": "b", "reason": "?"},
        {"sample_id": "b", "round": 1, "time": "2026-03-01T12:00:00Z"},
    ]
)
LINES = st.builds(lambda good, bad: json.dumps(good | bad).encode(), VALID, st.dictionaries(WORDS, VALUES, max_size=2))
KEYS = st.sampled_from(
    [
        *("drops/a/manifest.jsonl", "labels/a.jsonl", "queue/000001.jsonl", "quarantine/000001.jsonl"),
        *("quarantine/99999999999999999999999.jsonl", "released/a.jsonl", "withdrawn/a.jsonl"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, st.lists(LINES | st.binary(max_size=20), max_size=2), max_size=4))
def test_whatever_files_hold_the_ledger_is_there_or_one_line_says_why_not(files):
    project = Project(name="p", classes=CLASSES)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "WORTH_LINES", 1)
        store = open_store(Path(folder).as_uri())
        for key, lines in files.items():
            put(store, project, key, b"\n".join(lines))
        try:
            inputs = freeze(store)
            ledger = derive(store, project, inputs, NOON)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            inputs = segments.compact(store, inputs, ledger.fresh)
            assert derive(store, project, inputs, NOON).counts() == ledger.counts()
            ledger.labelled(CLASSES)
