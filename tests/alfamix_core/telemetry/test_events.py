import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.telemetry import events
from alfamix_core.telemetry.events import Progress, emit, parse


def test_what_is_emitted_is_parsed_back(capsys):
    emit("failed", stage="embed", shard="1", line='a "quoted" ü')
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    event = parse(line)
    assert datetime.fromisoformat(event.pop("time")).tzinfo is not None
    assert event == {
        "alfamix": "failed",
        "project": "",
        "round": 0,
        "stage": "embed",
        "shard": "1",
        "line": 'a "quoted" ü',
    }


def test_a_context_is_on_every_line_and_in_the_processes_that_are_started(capfd):
    child = [sys.executable, "-c", "from alfamix_core.telemetry.events import emit; emit('progress', done=1)"]
    with events.context(project="birds", round=7, stage="train", shard=""):
        with events.context(shard="3"):
            emit("started")
        subprocess.run(child, check=True)
    emit("finished")
    said = [parse(line) for line in capfd.readouterr().out.splitlines()]
    where = [[event[name] for name in ("project", "round", "stage", "shard")] for event in said]
    assert where == [["birds", 7, "train", "3"], ["birds", 7, "train", ""], ["", 0, "", ""]]


def test_for_people_a_line_is_time_place_kind_and_words(capsys, monkeypatch):
    monkeypatch.setenv("ALFAMIX_LOG", "human")
    with events.context(project="birds", round=7, stage="embed", shard="0"):
        emit("progress", done=3, total=4, unit="samples")
        emit("failed", status=2, line="the config\nis wrong")
    emit("trigger", project="birds", state="watching", text="every 60 s")
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "birds round 7 embed 0 progress done=3 total=4 unit=samples",
        "birds round 7 embed 0 failed status=2 the config is wrong",
        "birds trigger state=watching every 60 s",
    ]


@pytest.mark.parametrize(("value", "form"), [(None, "json"), ("", "json"), ("json", "json"), ("human", "human")])
def test_the_switch(monkeypatch, value, form):
    monkeypatch.delenv("ALFAMIX_LOG", raising=False)
    if value is not None:
        monkeypatch.setenv("ALFAMIX_LOG", value)
    assert events.form() == form


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
