"""The built-in queue: answered once, even if the answer is repeated."""

import pytest

from alfamix_core.errors import ObjectExistsError
from alfamix_core.queues import builtin
from alfamix_core.records.labels import LabelEvent


def test_the_same_answers_twice_are_answers_once_and_others_need_another_batch(store, noon):
    def event(label):
        return LabelEvent(event_id="e", sample_id="a", kind="label", label=label, annotator="ann", time=noon)

    builtin.add_answers(store, "monday", [event("猫")])
    before = store.read("labels/monday.jsonl")
    builtin.add_answers(store, "monday", [event("猫")])
    assert store.read("labels/monday.jsonl") == before
    with pytest.raises(ObjectExistsError):
        builtin.add_answers(store, "monday", [event("dog")])
