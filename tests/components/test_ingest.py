"""ingest alone decides whether a round starts."""

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout, lock, rounds
from components.ingest import stage as ingest


def test_the_first_run_plans_round_one_and_holds_the_lock(birds, events):
    birds.drop("a", "b", "c")
    key = birds.ingest("run-1")
    record, _ = rounds.read(birds.store, 1)
    assert (key, record.state, record.run_id) == (record.key, "planned", "run-1")
    assert lock.read(birds.store)[0].holder.run_id == "run-1"
    assert events() == [{"alfamix": "round", "number": 1, "state": "planned", "text": "the first round"}]


def test_a_second_run_is_refused_without_failing_and_writes_nothing(birds, events):
    birds.drop("a", "b", "c")
    birds.ingest("run-1")
    before = birds.files()
    events()
    assert birds.ingest("run-2") == "idle"
    assert birds.files() == before
    (event,) = events()
    assert (event["state"], event["number"]) == ("refused", 0)
    assert event["text"].startswith("the project is locked by run run-1 until ")


def test_a_retry_of_the_same_run_gets_the_same_round(birds):
    birds.drop("a", "b", "c")
    key = birds.ingest("run-1")
    assert birds.ingest("run-1") == key
    assert rounds.numbers(birds.store) == [1]
    assert lock.read(birds.store)[0].fence == 1


def test_a_run_after_a_dead_one_resumes_its_round(birds, events):
    birds.drop("a", "b", "c")
    key = birds.ingest("run-1")
    birds.expire_lock()
    events()
    assert birds.ingest("run-2") == key
    assert events() == [
        {"alfamix": "round", "number": 1, "state": "resumed", "text": "round 1 is unfinished and continues"}
    ]
    assert (rounds.read(birds.store, 1)[0].run_id, lock.read(birds.store)[0].fence) == ("run-2", 2)


def test_fresh_gives_a_round_that_is_resumed_another_key_once_for_each_run_that_asks(birds):
    birds.drop("a", "b", "c")
    first = birds.ingest("run-1", fresh=True)
    assert first == rounds.read(birds.store, 1)[0].key, "no cache knows a new round"
    keys = [first]
    for run_id in ("run-2", "run-2", "run-3"):
        if run_id != rounds.read(birds.store, 1)[0].run_id:
            birds.expire_lock()
        keys.append(birds.ingest(run_id, fresh=True))
    assert keys == [first, f"{first}-1", f"{first}-1", f"{first}-2"]
    birds.expire_lock()
    assert birds.ingest("run-4") == f"{first}-2"


def test_a_file_that_cannot_be_used_is_set_aside_and_the_round_starts(birds, events):
    birds.drop("a", "b")
    birds.store.create("drops/z/manifest.jsonl", b"{}\n")
    assert birds.ingest("run-1") != ingest.IDLE
    line = 'drops/z/manifest.jsonl line 1: field "uri" is missing'
    assert [event for event in events() if event["alfamix"] == "set_aside"] == [
        {"alfamix": "set_aside", "key": "drops/z/manifest.jsonl", "line": 0, "text": line}
    ]


@pytest.mark.parametrize("wrong", ["config", "empty"])
def test_wrong_input_is_refused_before_anything_is_written(birds, wrong):
    if wrong != "empty":
        birds.drop("a", "b")
    if wrong == "config":
        stored = birds.store.read(layout.PROJECT)
        birds.store.swap(layout.PROJECT, stored.data.replace(b'"budget": 2', b'"budget": 0'), stored.tag)
    before = birds.files()
    with pytest.raises(InputError):
        birds.ingest("run-1")
    assert birds.files() == before
