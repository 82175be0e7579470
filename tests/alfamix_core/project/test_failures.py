"""How a stage ends, and what it leaves for readers of its failure."""

import logging
import math
import warnings
from contextlib import contextmanager

import pytest

from alfamix_core.errors import InputError, LockedError, StorageError
from alfamix_core.project import layout, planning
from alfamix_core.project.failures import StageContext, attempts, read_failures, reported
from alfamix_core.project.patience import patience
from alfamix_core.records.round import Failure
from alfamix_core.telemetry.events import parse

EMBED_2 = {"project": "birds", "round": 1, "stage": "embed", "shard": "2"}


def without_attempts(made):
    return {key: data for key, data in made.files().items() if layout.attempts(1) not in key}


@pytest.fixture
def planned(made, holder, noon):
    """A round in progress, of the run "run-1"."""
    made.drop("a", "b")
    return planning.begin(made.store, holder("run-1"), noon)[0]


@contextmanager
def attempt(*arguments, **fields):
    """One attempt at a stage, whose work is the block."""
    context = StageContext(*arguments, **fields)
    with reported(context):
        context.begin_attempt()
        yield


def fail(made, error, *arguments, **fields):
    """Let a stage stop on an error; return its exit status."""
    with pytest.raises(SystemExit) as stopped, attempt(*arguments[:1], made.store.uri, *arguments[1:], **fields):
        raise error
    return stopped.value.code


def test_a_stage_that_ends_well_says_so_and_leaves_the_mark_of_its_attempt(made, planned, capsys):
    before = made.files()
    with attempt("embed", made.store.uri, planned.key, shard="2"):
        pass
    started, finished = map(parse, capsys.readouterr().out.splitlines())
    assert started == {"alfamix": "started", "time": started["time"], **EMBED_2}
    assert (finished["alfamix"], finished["seconds"] >= 0) == ("finished", True)
    (mark,) = made.files().keys() - before.keys()
    assert mark.startswith("rounds/000001/run/attempts/embed-2/")


def test_attempts_are_counted_by_stage_and_shard(made, planned):
    for shard in ("0", "1", "1"):
        with attempt("embed", made.store.uri, planned.key, shard=shard):
            pass
    with pytest.raises(ZeroDivisionError), attempt("train", made.store.uri, planned.key):
        raise ZeroDivisionError
    with attempt("finish", made.store.uri, run_id="run-1"):
        pass
    assert attempts(made.store, 1) == {("embed", "0"): 1, ("embed", "1"): 2, ("train", ""): 1}


def test_a_warning_of_a_library_is_an_event(made, planned, capsys):
    with attempt("embed", made.store.uri, planned.key, shard="2"):
        warnings.simplefilter("default")
        warnings.warn("deterministic it is not", UserWarning, stacklevel=1)
    _, said, _ = map(parse, capsys.readouterr().out.splitlines())
    assert {name: said[name] for name in EMBED_2} == EMBED_2
    assert said["text"].startswith("UserWarning: deterministic it is not (")


@pytest.mark.parametrize(("level", "kind"), [(logging.INFO, "log"), (logging.WARNING, "warning")])
def test_what_a_library_logs_is_an_event(made, planned, capsys, monkeypatch, level, kind):
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.INFO)
    before = root.handlers[:]
    with attempt("embed", made.store.uri, planned.key, shard="2"):
        logging.getLogger("some.library").log(level, "try %d", 3)
        logging.getLogger("some.library").debug("beneath the root's level")
    assert root.handlers == before
    said = capsys.readouterr()
    assert said.err == ""
    _, event, _ = map(parse, said.out.splitlines())
    assert event == {"alfamix": kind, "time": event["time"], **EMBED_2, "text": "some.library: try 3"}


def test_a_traceback_that_a_library_logs_is_one_line(made, planned, capsys, monkeypatch):
    for form in ("json", "human"):
        monkeypatch.setenv("ALFAMIX_LOG", form)
        with attempt("embed", made.store.uri, planned.key, shard="2"):
            try:
                raise KeyError("gone")
            except KeyError:
                logging.getLogger("some.library").exception("no answer")
        _, line, _ = capsys.readouterr().out.splitlines()
        assert "some.library: no answer" in line
        assert "KeyError: 'gone'" in line


def test_before_project_json_can_be_read_a_line_has_the_uri(tmp_path, capsys):
    uri = (tmp_path / "none").as_uri()
    with pytest.raises(SystemExit), attempt("ingest", uri):
        raise InputError("no project")
    assert {parse(line)["project"] for line in capsys.readouterr().out.splitlines()} == {uri}


def test_a_switch_that_is_neither_stops_the_stage(made, planned, capsys, monkeypatch):
    monkeypatch.setenv("ALFAMIX_LOG", "xml")
    with pytest.raises(SystemExit) as stopped, attempt("train", made.store.uri, planned.key):
        pass
    assert stopped.value.code == 2
    line = parse(capsys.readouterr().out.splitlines()[-1])["line"]
    assert line == 'the environment variable ALFAMIX_LOG must be json or human, not "xml"'


@pytest.mark.parametrize(("kind", "status"), [(InputError, 2), (LockedError, 2), (StorageError, 3)])
def test_a_deliberate_error_is_one_line_one_record_and_one_status(made, planned, capsys, kind, status):
    assert fail(made, kind("the\n  config is  wrong"), "embed", planned.key, shard="2") == status
    said = capsys.readouterr()
    assert said.err == ""
    failed = parse(said.out.splitlines()[-1])
    assert failed == {
        "alfamix": "failed",
        "time": failed["time"],
        **EMBED_2,
        "status": status,
        "line": "the config is wrong",
    }
    expected = Failure(stage="embed", shard="2", run_id="run-1", status=status, line="the config is wrong")
    assert Failure.parse(made.store.read(layout.failure(1, "embed", "2")).data, "") == expected
    assert read_failures(made.store, 1) == [expected]


def test_a_bug_of_ours_keeps_its_traceback_and_leaves_no_record(made, planned):
    before = made.files()
    with pytest.raises(ZeroDivisionError), attempt("train", made.store.uri, planned.key):
        raise ZeroDivisionError
    assert all(layout.attempts(1) in key for key in made.files().keys() - before.keys())


@pytest.mark.parametrize("early", [False, True])
def test_a_retry_of_the_same_run_stops_at_once_after_wrong_input(made, planned, capsys, early):
    place = {"run_id": "run-1"} if early else {"key": planned.key}
    fail(made, InputError("wrong"), "ingest", **place)
    before, worked = made.files(), []
    with pytest.raises(SystemExit) as stopped, attempt("ingest", made.store.uri, **place):
        worked.append("in vain")
    assert (stopped.value.code, worked) == (2, [])
    assert made.files() == before
    said = map(parse, capsys.readouterr().out.splitlines())
    assert [each["line"] for each in said if each["alfamix"] == "failed"] == ["wrong"] * 2


def test_a_retry_after_a_failing_store_tries_again(made, planned):
    fail(made, StorageError("down"), "train", planned.key)
    with attempt("train", made.store.uri, planned.key):
        pass
    assert fail(made, InputError("now this"), "train", planned.key) == 2
    assert [failure.line for failure in read_failures(made.store, 1)] == ["now this"]


def test_another_stage_of_the_run_is_not_stopped(made, planned):
    fail(made, InputError("wrong"), "ingest", run_id="run-1")
    fail(made, InputError("wrong"), "embed", planned.key, shard="0")
    worked = []
    with attempt("finish", made.store.uri, run_id="run-1"), attempt("embed", made.store.uri, planned.key, shard="1"):
        worked.append("both")
    assert worked == ["both"]


def test_another_run_may_try_again_and_the_old_failure_is_not_its_own(made, planned, holder, noon):
    fail(made, InputError("wrong"), "train", planned.key)
    resumed, _ = planning.begin(made.store, holder("run-2"), noon.replace(day=3))
    assert read_failures(made.store, 1) == []
    with attempt("train", made.store.uri, resumed.key):
        pass
    assert fail(made, InputError("still wrong"), "train", resumed.key) == 2
    assert [failure.run_id for failure in read_failures(made.store, 1)] == ["run-2"]


def test_a_run_that_was_taken_over_does_not_stop_the_one_that_has_the_round(made, planned, holder, noon):
    planning.begin(made.store, holder("run-2"), noon.replace(day=3))
    before = without_attempts(made)
    assert fail(made, LockedError("run-1 no longer holds the project"), "export", planned.key, run_id="run-1") == 2
    assert without_attempts(made) == before


def test_before_a_round_exists_the_record_is_the_run_s(made):
    assert fail(made, InputError("no samples"), "ingest", run_id="run-7") == 2
    failure = Failure.parse(made.store.read("failures/run-7.json").data, "")
    assert failure == Failure(stage="ingest", run_id="run-7", status=2, line="no samples")


def test_a_failure_that_cannot_be_recorded_is_still_told(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"not a folder")
    uri = (tmp_path / "file").as_uri()
    with pytest.raises(SystemExit) as stopped, attempt("ingest", uri, run_id="run-1"):
        raise StorageError("no project there")
    assert stopped.value.code == 3
    _, warned, failed = map(parse, capsys.readouterr().out.splitlines())
    assert warned["text"].startswith("the failure could not be recorded in the project: ")
    assert failed["line"] == "no project there"


def test_a_run_that_starts_a_shard_again_and_again_stops_there_and_nowhere_else(made, planned, holder, noon, capsys):
    """Argo repeats every DAG around a lost pod; the work of a lost pod never ends, as a bug's does not here."""

    def start(starts, key=planned.key, shard="2"):
        context = StageContext("embed", made.store.uri, key, shard)
        with reported(context):
            context.begin_attempt(starts)

    for _ in range(4):
        start(4)
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            start(4)
        assert stopped.value.code == 2
    line = parse(capsys.readouterr().out.splitlines()[-1])["line"]
    assert line.startswith("embed 2 was started 4 times in this run and did not end, and its retries allow 4: ")
    assert attempts(made.store, 1) == {("embed", "2"): 4}
    start(4, shard="20")
    resumed, _ = planning.begin(made.store, holder("run-2"), noon.replace(day=3))
    start(4, resumed.key)


def test_without_the_platform_s_settings_a_shard_may_start_as_often_as_the_user_likes(monkeypatch):
    monkeypatch.delenv("ALFAMIX_STAGE_RETRIES", raising=False)
    assert patience().starts == math.inf
    for retries, starts in (("0", 1), ("2", 9)):
        monkeypatch.setenv("ALFAMIX_STAGE_RETRIES", retries)
        assert patience().starts == starts
