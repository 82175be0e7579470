"""A load: what is delivered is in the tables exactly once, even if loaders die and files change afterwards."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import doctor, layout, lock, planning
from alfamix_core.project.inbox import listing
from alfamix_core.project.ledger import load
from alfamix_core.project.ledger.tables import open_tables
from alfamix_core.records.lock import Holder
from alfamix_core.records.round import Round
from alfamix_core.records.tables import SCHEMAS
from alfamix_core.storage import path_of
from tests.alfamix_core.project.ledger.loader import RUN

HOUR = timedelta(hours=1)


def rows(made, name):
    """Return the rows of a table as it was written."""
    return open_tables(made.store).dataset(name).to_table().to_pylist()


def ids(made, name="samples", column="sample_id"):
    return sorted(row[column] for row in rows(made, name))


def waiting(made, noon):
    """Return (key, what) of the doctor's findings about the inbox."""
    return [(each.key, each.what) for each in doctor.examine(made.store, noon) if each.kind == "waiting"]


# once


def test_each_file_is_loaded_once_and_nothing_is_written_where_nothing_is_new(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.label("1", b="cat")
    made.ask(1, "c")
    assert made.load().rows == {"samples": 2, "events": 1, "questions": 1, "inbox": 3}
    before = made.files()
    assert made.load(noon + HOUR).rows == {}
    assert {key: data for key, data in made.files().items() if key != layout.LOCK} == {
        key: data for key, data in before.items() if key != layout.LOCK
    }
    assert (ids(made), ids(made, "events"), ids(made, "questions")) == (["b", "c"], ["b"], ["c"])


def test_a_file_that_no_load_has_read_is_seen_all_the_same_and_seeing_writes_nothing(made):
    made.drop("a", "b", "c")
    made.load()
    made.drop("z", "d")
    made.label("1", b="cat")
    before = made.files()
    assert (made.pool(), made.labels()) == (["c", "d"], {"b": "cat"})
    assert made.files() == before


def test_of_a_file_that_grew_the_new_lines_are_loaded(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.label("1", b="cat")
    made.load()
    made.edit(layout.manifest("a"), lambda data: data + made.lines("d", "e"))
    made.edit(layout.labels("1"), lambda data: data + made.event("late", "c", "owl").json_line())
    assert made.load(noon + HOUR).rows == {"samples": 2, "events": 1, "inbox": 2}
    assert (ids(made), made.labels()) == (["b", "c", "d", "e"], {"b": "cat", "c": "owl"})
    file = {file.key: file for file in made.ledger().inbox()}[layout.manifest("a")]
    assert (file.rows, file.repeated, file.vanished) == (2, 2, 0)
    assert waiting(made, noon) == []


def test_lines_that_vanished_or_changed_are_not_unlearned_and_the_doctor_says_so(made, noon):
    made.drop("a", "b", "c", "d")
    made.label("1", b="cat", c="dog")
    made.load()
    made.edit(layout.manifest("a"), lambda data: data.splitlines(keepends=True)[0])
    made.edit(layout.labels("1"), lambda data: data.replace(b'"dog"', b'"owl"'))
    made.load(noon + HOUR)
    assert ids(made) == ["b", "c", "d"]
    assert sorted(row["label"] for row in rows(made, "events")) == ["cat", "dog", "owl"]
    said = "of its lines that were loaded are gone or changed; their content still counts"
    assert waiting(made, noon)[1:] == [
        ("drops/a/manifest.jsonl", f"2 {said}"),
        ("labels/1.jsonl", f"1 {said}"),
    ]


def test_a_manifest_that_grew_is_seen_and_a_deleted_one_is_said(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b")
    made.drop("z", "c")
    made.load()
    made.edit(layout.manifest("a"), lambda data: data + made.lines("d"))
    made.store.delete(layout.manifest("z"))
    assert made.pool() == ["b", "c", "d"]
    gone = (layout.manifest("z"), "was loaded and is deleted; its content still counts")
    assert waiting(made, noon) == [gone]
    made.load(noon + HOUR)
    assert made.pool() == ["b", "c", "d"]
    assert waiting(made, noon) == [gone]


def test_a_file_that_is_put_back_after_its_rows_were_loaded_brings_nothing(made, noon):
    made.drop("a", "b")
    made.load()
    data = made.store.read(layout.manifest("a")).data
    made.store.delete(layout.manifest("a"))
    made.store.create(layout.manifest("a"), data)
    assert made.load(noon + HOUR).rows == {"inbox": 1}
    assert ids(made) == ["b"]


def test_a_file_that_is_replaced_while_it_is_read_is_left_to_the_next_load(made, noon, monkeypatch):
    made.drop("a", "b")
    made.drop("z", "c")
    real = load.read

    def read(store, project, file, folder):
        if file.key == layout.manifest("z") and store.entry(file.key) is not None:
            store.delete(file.key)
        return real(store, project, file, folder)

    monkeypatch.setattr(load, "read", read)
    made.load()
    assert ids(made) == ["b"]
    monkeypatch.undo()
    made.drop("z", "c")
    made.load(noon + HOUR)
    assert ids(made) == ["b", "c"]


# set aside, never stopped


BAD = (
    b'{"event_id": "e", "sample_id": "b", "kind": "label", "label": "cow", "annotator": "x", '
    b'"time": "2026-03-01T12:00:00Z"}\n'
)
NOT_A_CLASS = 'labels/bad.jsonl line 1: label "cow" is not a class; the classes are cat, dog, owl'


def test_a_file_that_cannot_be_used_is_set_aside_as_a_whole_and_rounds_go_on(made_anywhere, holder, noon):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.store.create("labels/bad.jsonl", made.event("1", "c", "cat").json_line() + BAD)
    made.label("good", b="dog")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    assert (record.counts.train, record.counts.pool) == (1, 1)
    reason = NOT_A_CLASS.replace("line 1", "line 2")
    assert made.ledger().set_aside() == [("labels/bad.jsonl", 0, reason)]
    assert waiting(made, noon) == [("labels/bad.jsonl", f"is set aside: {reason}")]
    assert {row["key"]: row["state"] for row in rows(made, "inbox")} == {
        "drops/a/manifest.jsonl": "loaded",
        "labels/bad.jsonl": "set aside",
        "labels/good.jsonl": "loaded",
    }


def test_what_was_set_aside_is_tried_again_when_its_bytes_change_and_not_before(made, noon):
    made.drop("a", "b")
    made.store.create("labels/bad.jsonl", BAD)
    made.load()
    assert made.load(noon + HOUR).files == {}
    made.edit("labels/bad.jsonl", lambda data: data.replace(b"cow", b"cat"))
    assert made.load(noon + HOUR).files == {"labels/bad.jsonl": "loaded"}
    assert (made.labels(), made.ledger().set_aside()) == ({"b": "cat"}, [])


@pytest.mark.parametrize("setting", ["classes", "data_prefixes"])
def test_what_was_set_aside_is_tried_again_when_the_settings_that_condemned_it_change(made, noon, setting):
    made.drop("a", "b")
    if setting == "classes":
        made.store.create("labels/bad.jsonl", BAD)
        other = ["cat", "dog", "owl", "cow"]
    else:
        made.store.create(layout.manifest("bad"), b'{"uri": "s3://pictures/x.png", "id": "x"}\n')
        other = ["s3://pictures"]
    made.load()
    assert len(made.ledger().set_aside()) == 1
    made.configure(budget=1)
    assert made.load(noon + HOUR).files == {}
    made.configure(**{setting: other})
    assert list(made.load(noon + HOUR).files.values()) == ["loaded"]
    assert made.ledger().set_aside() == []


def test_a_loaded_file_that_becomes_bad_is_set_aside_and_what_it_said_still_counts(made, noon):
    made.drop("a", "b", "c")
    made.label("1", b="cat")
    made.load()
    made.edit(layout.labels("1"), lambda data: data + b"{")
    made.load(noon + HOUR)
    assert made.labels() == {"b": "cat"}
    assert [(key, line) for key, line, _ in made.ledger().set_aside()] == [("labels/1.jsonl", 0)]
    made.edit(layout.labels("1"), lambda data: data[:-1])
    assert made.load(noon + HOUR).rows == {"inbox": 1}
    assert (made.labels(), made.ledger().set_aside()) == ({"b": "cat"}, [])


def test_a_line_that_gives_a_known_id_another_uri_is_set_aside_alone(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.load()
    other = made.lines("b").replace(b"b.png", b"other.png")
    made.store.create(layout.manifest("z"), made.lines("d") + other + made.lines("c", "e"))
    made.load(noon + HOUR)
    assert ids(made) == ["b", "c", "d", "e"]
    uri = made.store.uri_of
    reason = (
        f'drops/z/manifest.jsonl line 2: id "b" is already the sample {uri("files/b.png")} of drops/a/manifest.jsonl; '
        f"it cannot be {uri('files/other.png')} as well"
    )
    assert made.ledger().set_aside() == [("drops/z/manifest.jsonl", 2, reason)]
    assert waiting(made, noon) == [("drops/z/manifest.jsonl", f"a line is set aside: {reason}")]
    file = {file.key: file for file in made.ledger().inbox()}["drops/z/manifest.jsonl"]
    assert (file.state, file.rows, file.repeated) == ("loaded", 2, 1)
    made.edit(layout.manifest("z"), lambda data: made.lines("d", "c", "e"))
    made.load(noon + HOUR)
    assert made.ledger().set_aside() == []


def test_within_a_load_the_first_file_by_its_key_and_the_first_line_give_a_sample_its_uri(made):
    """The order is that of the keys' bytes, in which capitals come before small letters."""
    for name, picture in (("a", "2"), ("B", "1"), ("b", "3")):
        made.store.create(
            layout.manifest(name), made.lines(picture).replace(f'"id": "{picture}"'.encode(), b'"id": "x"') * 2
        )
    made.load()
    assert [row["uri"] for row in rows(made, "samples")] == [made.store.uri_of("files/1.png")]
    assert [(key, line) for key, line, _ in made.ledger().set_aside()] == [
        *((layout.manifest("a"), 1), (layout.manifest("a"), 2)),
        *((layout.manifest("b"), 1), (layout.manifest("b"), 2)),
    ]


def test_files_whose_names_cannot_be_keys_are_said(made, noon):
    made.drop("a", "b")
    folder = path_of(made.store.uri_of("labels/1.jsonl")).parent
    folder.mkdir()
    (folder / "back\\slash.jsonl").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl")).write_bytes(b"")
    said = [what for _, what in waiting(made, noon)]
    assert said == [
        "is set aside: cannot be read: 'labels/\\udcff.jsonl' is not a valid name here",
        "is set aside: cannot be read: 'labels/back\\\\slash.jsonl' is not a valid name here",
    ]
    made.load()
    assert made.pool() == ["b"]


def test_a_drop_without_its_manifest_is_not_delivered_yet(made):
    made.store.create("drops/half/files/a.png", b"half")
    made.store.create("drops/half/files/manifest.jsonl", b"not ours")
    assert listing.list_inbox(made.store).files == ()


# identity


def test_equal_events_count_once_whichever_file_repeats_them(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b")
    event = made.event("same", "b", "cat")
    made.events("1", event, event)
    made.load()
    made.events("2", event)
    made.store.create("labels/sub/3.jsonl", event.json_line().replace(b"Z", b".000+00:00"))
    made.load(noon + HOUR)
    assert [(row["key"], row["line"]) for row in rows(made, "events")] == [("labels/1.jsonl", 1)]
    assert made.ledger().repeated_event_ids() == []


def test_two_annotators_who_both_number_their_events_from_1_lose_no_label(made_anywhere, noon):
    """Each event counts, and the doctor says that ids came back."""
    made = made_anywhere
    made.drop("a", *"bcdef")
    made.events("ann", *(made.event(str(n), key, "cat") for n, key in enumerate("bc", start=1)))
    made.load()
    made.events("bob", *(made.event(str(n), key, "dog", annotator="bob") for n, key in enumerate("de", start=1)))
    made.load(noon + HOUR)
    assert made.labels() == {"b": "cat", "c": "cat", "d": "dog", "e": "dog"}
    assert made.pool() == ["f"]
    assert made.ledger().repeated_event_ids() == ["1", "2"]
    assert waiting(made, noon) == [
        ("", "2 event ids came back with other content and count as other events, such as '1'")
    ]


def test_the_same_id_with_the_same_uri_again_is_a_repetition(made, noon):
    made.drop("a", "b", label="cat")
    made.drop("z", "b", "b", "c", label="dog")
    made.load()
    assert made.labels() == {"b": "cat", "c": "dog"}
    file = {file.key: file for file in made.ledger().inbox()}[layout.manifest("z")]
    assert (file.rows, file.repeated) == (1, 2)


# even if loaders die


def test_a_round_is_in_the_tables_once_it_is_committed_and_an_abandoned_one_never(made, noon):
    made.drop("a", "b", "c")
    made.load()
    made.ask(1, "b")
    assert made.ledger().open_rounds() == {1}, "a reader takes it from the record"
    made.load(noon + HOUR)
    made.load(noon + HOUR)
    assert [(row["sample_id"], row["round"]) for row in rows(made, "questions")] == [("b", 1)]


@pytest.mark.parametrize(
    "dies_before", [name for name in SCHEMAS if name in ("samples", "events", "questions", "inbox")]
)
def test_a_load_that_died_between_two_tables_is_finished_by_the_next(made_anywhere, noon, monkeypatch, dies_before):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.label("1", b="cat")
    made.ask(1, "c")
    real = load.append

    def append(tables, name, *arguments):
        if name == dies_before:
            raise KeyboardInterrupt
        real(tables, name, *arguments)

    monkeypatch.setattr(load, "append", append)
    with pytest.raises(KeyboardInterrupt):
        made.load()
    monkeypatch.undo()
    made.load(noon + HOUR)
    assert {name: len(rows(made, name)) for name in SCHEMAS} == {
        **{"samples": 2, "events": 1, "questions": 1, "quarantine": 0, "corrections": 0, "inbox": 3}
    }
    assert doctor.examine(made.store, noon, deep=True) == []


class Loader:
    """A process that loads when it is told to."""

    def __init__(self, store):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.alfamix_core.project.ledger.loader", store.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[4],
        )

    def expect(self, word):
        assert self.process.stdout.readline().strip() == word

    def tell(self, now):
        self.process.stdin.write(now.isoformat() + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def loader(made_anywhere, noon):
    """Start a process that loads the project and believes that it holds the lock, as all of them do."""
    lock.acquire(made_anywhere.store, Holder(run_id=RUN), noon, noon + 1000 * HOUR)
    started = []

    def loader():
        started.append(Loader(made_anywhere.store))
        return started[-1]

    yield loader
    for each in started:
        if each.process.returncode is None:
            each.end()


def deliver(made, step):
    """Deliver three drops with a common sample, and three batches with a common event and a common id."""
    for name in "abc":
        made.drop(f"{step}-{name}", f"{step}-{name}", f"{step}-common")
        made.events(
            f"{step}-{name}",
            made.event(f"{step}-common", f"{step}-common", "cat"),
            made.event(f"{step}-id", f"{step}-{name}", "dog"),
        )


def check_all(made, steps, noon):
    """Everything that was delivered is in the tables once, and each file is known as loaded."""
    samples = Counter(f"{step}-{name}" for step in range(steps) for name in ("a", "b", "c", "common"))
    events = Counter()
    for step in range(steps):
        events[(f"{step}-common", f"{step}-common")] += 1
        events |= Counter((f"{step}-id", f"{step}-{name}") for name in "abc")
    assert Counter(ids(made)) == samples
    assert Counter((row["event_id"], row["sample_id"]) for row in rows(made, "events")) == events
    assert {file.state for file in made.ledger().inbox()} == {"loaded"}
    assert len(made.ledger().inbox()) == 6 * steps
    assert doctor.examine(made.store, noon, deep=True) == [
        each for each in doctor.examine(made.store, noon) if each.kind == "waiting"
    ]


@pytest.mark.slow
def test_processes_that_load_the_same_files_at_the_same_moment_load_each_once(made_anywhere, loader, noon):
    made, steps = made_anywhere, 3
    loaders = [loader() for _ in range(4)]
    for each in loaders:
        each.expect("ready")
    for step in range(steps):
        deliver(made, step)
        for each in loaders:
            each.tell(noon + step * HOUR)
        for each in loaders:
            each.expect("loaded")
        check_all(made, step + 1, noon)


@pytest.mark.slow
def test_a_load_that_is_killed_at_any_moment_loses_nothing_and_repeats_nothing(made_anywhere, loader, noon):
    """Two race for the same files, and both are killed within the time that a load takes."""
    made, kills, dice = made_anywhere, 6, random.Random(1)
    longest = 0.6
    for step in range(kills):
        racing = [loader(), loader()]
        for each in racing:
            each.expect("ready")
        deliver(made, step)
        for each in racing:
            each.tell(noon + step * HOUR)
        for each in racing:
            time.sleep(dice.uniform(0, longest))
            each.end()
    survivor = loader()
    survivor.expect("ready")
    survivor.tell(noon + kills * HOUR)
    survivor.expect("loaded")
    check_all(made, kills, noon)


@pytest.mark.parametrize(
    ("restored", "message"),
    [
        ("without the round", r"^rounds/000002/round.json is gone, and ledger/ holds its questions: put back"),
        ("not yet exported", r"^rounds/000002/round.json is planned with digest 000000000000, and ledger/ holds"),
        ("another round of that number", r"^rounds/000002/round.json is exported with digest ffffffffffff, and ledger"),
    ],
)
def test_a_ledger_that_is_newer_than_the_rounds_is_refused(made_anywhere, noon, restored, message):
    """Half a restore: the questions of a round that is not there would be open, and nobody would see them."""
    made = made_anywhere
    made.drop("a", "b", "c")
    made.ask(1, "b")
    made.ask(2, "c")
    made.load()
    key = layout.round_file(2)
    stored = made.store.read(key)
    made.store.delete(key)
    record = Round.parse(stored.data, key)
    if restored != "without the round":
        change = {"state": "planned"} if restored == "not yet exported" else {"digest": "f" * 64}
        made.store.create(key, record.model_copy(update=change).document())
    with pytest.raises(InputError, match=message):
        made.ledger()
    findings = doctor.examine(made.store, noon)
    assert [(finding.kind, finding.key) for finding in findings if "questions" in finding.what] == [
        ("inconsistent", layout.LEDGER)
    ]
    made.store.delete(key)
    made.store.create(key, stored.data)
    assert len(made.ledger().open_queries()) == 2
