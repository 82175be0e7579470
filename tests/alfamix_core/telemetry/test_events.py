import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.telemetry import events
from alfamix_core.telemetry.events import Progress, emit, parse


def test_what_is_emitted_is_parsed_back(capsys):
    emit("failed", stage="embed", shard="1", line='a "quoted" ü')
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert parse(line) == {"alfamix": "failed", "stage": "embed", "shard": "1", "line": 'a "quoted" ü'}


def test_an_event_is_found_behind_what_the_sdk_puts_before_it():
    assert parse('17:02:11 - INFO - {"alfamix": "started", "stage": "train"}\n') == {
        "alfamix": "started",
        "stage": "train",
    }


@pytest.mark.parametrize("line", ["", "training …", '{"alfamix": ', '{"alfamix": "started"} and more', '{"other": 1}'])
def test_what_is_no_event_is_none(line):
    assert parse(line) is None


@given(st.text())
def test_no_line_whatever_it_holds_stops_the_reader(text):
    assert parse(text) is None
    parse('{"alfamix": ' + text)


def test_progress_is_told_at_most_once_a_second_and_at_the_end(capsys, monkeypatch):
    clock = iter([10.0, 10.5, 11.0, 11.1])
    monkeypatch.setattr(events.time, "monotonic", lambda: next(clock))
    progress = Progress("embed", "0", "samples")
    for done in (1, 2, 3, 4):
        progress(done, 4)
    told = [parse(line) for line in capsys.readouterr().out.splitlines()]
    assert [(event["done"], event["total"], event["unit"]) for event in told] == [
        (1, 4, "samples"),
        (3, 4, "samples"),
        (4, 4, "samples"),
    ]
