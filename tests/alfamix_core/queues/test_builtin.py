"""The built-in queue: asked once, answered once, whoever repeats it."""

import pytest

from alfamix_core.errors import ObjectExistsError
from alfamix_core.queues import builtin
from alfamix_core.records.labels import LabelEvent
from alfamix_core.storage import open_store


def test_submitting_again_returns_what_was_asked_first(store, question):
    asked = [question("a", 4, 0, suggestion="Großtrappe"), question("b", 4, 1)]
    assert builtin.submit(store, 4, asked) == asked
    before = store.read("queue/000004.jsonl")
    assert builtin.submit(store, 4, [question("c", 4, 0)]) == asked
    assert store.read("queue/000004.jsonl") == before


def test_a_round_may_ask_nothing(tmp_path):
    store = open_store(tmp_path.as_uri())
    assert builtin.submit(store, 1, []) == []
    assert store.read("queue/000001.jsonl").data == b""


def test_the_same_answers_twice_are_answers_once_and_others_need_another_batch(store, noon):
    def event(label):
        return LabelEvent(event_id="e", sample_id="a", kind="label", label=label, annotator="ann", time=noon)

    builtin.add_answers(store, "monday", [event("猫")])
    before = store.read("labels/monday.jsonl")
    builtin.add_answers(store, "monday", [event("猫")])
    assert store.read("labels/monday.jsonl") == before
    with pytest.raises(ObjectExistsError):
        builtin.add_answers(store, "monday", [event("dog")])
