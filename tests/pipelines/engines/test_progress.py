"""What a watching process makes of a run's events."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.progress import Run

GOOD = {
    "round": {"number": 3, "state": "planned", "text": "the first round"},
    "outcome": {"state": "exported", "text": "x"},
    "started": {"stage": "embed", "shard": "1"},
    "progress": {"stage": "embed", "shard": "1", "done": 5, "total": 10, "unit": "samples"},
    "finished": {"stage": "embed", "shard": "1", "seconds": 1.5},
    "failed": {"stage": "embed", "shard": "1", "status": 2, "line": "no"},
}


def test_a_run_is_followed_by_its_events():
    run = Run()
    lines = [run.take({"alfamix": kind, **fields}) for kind, fields in GOOD.items()]
    assert (run.number, run.state, run.text, run.outcome) == (3, "planned", "the first round", "exported")
    assert lines[4].split() == ["embed", "1", "done", "1.5", "s", "10", "samples"]
    assert lines[5].split()[2] == "failed"
    assert run.failures == [("embed", 2, "no")]
    assert run.line("embed") == ("failed", "1.5 s", "5 of 10 samples")
    assert run.line("train") == ("", "", "")


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in GOOD for field in GOOD[kind]])
def test_an_event_that_lacks_a_field_changes_nothing(kind, field):
    if (kind, field) == ("outcome", "text"):
        return  # which nobody reads
    run = Run()
    run.take({"alfamix": "progress", "stage": "embed", "shard": "1", "done": 1, "total": 2, "unit": "x"})
    before = repr(run)
    assert run.take({"alfamix": kind} | {name: value for name, value in GOOD[kind].items() if name != field}) == ""
    assert repr(run) == before


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_whatever_an_event_holds_the_run_can_be_drawn(kind, data):
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(math.inf)
    fields = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD[kind], values)))
    run = Run()
    for event in ({"alfamix": kind} | GOOD[kind], {"alfamix": kind} | GOOD[kind] | fields, {"alfamix": kind} | fields):
        run.take(json.loads(json.dumps(event)))
    for stage in run.tasks:
        assert len(run.line(stage)) == 3
