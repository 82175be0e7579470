"""How a stage ends, and what it leaves for whoever asks why."""

import pytest

from alfamix_core.errors import InputError, LockedError, StorageError
from alfamix_core.project import layout, rounds
from alfamix_core.project.failures import read_failures, reported
from alfamix_core.records.round import Failure
from alfamix_core.telemetry.events import parse


@pytest.fixture
def planned(made, holder, noon):
    """A round in progress, of the run "run-1"."""
    made.drop("a", "b")
    return rounds.begin(made.store, holder("run-1"), noon)[0]


def fail(made, error, *arguments, **fields):
    """Let a stage stop on an error; return its exit status."""
    with pytest.raises(SystemExit) as stopped, reported(*arguments[:1], made.store.uri, *arguments[1:], **fields):
        raise error
    return stopped.value.code


def test_a_stage_that_ends_well_says_so_and_writes_nothing(made, planned, capsys):
    before = made.files()
    with reported("embed", made.store.uri, planned.key, shard="2"):
        pass
    started, finished = map(parse, capsys.readouterr().out.splitlines())
    assert started == {"alfamix": "started", "stage": "embed", "shard": "2"}
    assert (finished["alfamix"], finished["seconds"] >= 0) == ("finished", True)
    assert made.files() == before


@pytest.mark.parametrize(("kind", "status"), [(InputError, 2), (LockedError, 2), (StorageError, 3)])
def test_a_deliberate_error_is_one_line_one_record_and_one_status(made, planned, capsys, kind, status):
    assert fail(made, kind("the\n  config is  wrong"), "embed", planned.key, shard="2") == status
    said = capsys.readouterr()
    assert said.err == "alfamix embed shard 2: the config is wrong\n"
    failed = parse(said.out.splitlines()[-1])
    assert failed == {
        "alfamix": "failed",
        "stage": "embed",
        "shard": "2",
        "status": status,
        "line": "the config is wrong",
    }
    expected = Failure(stage="embed", shard="2", run_id="run-1", status=status, line="the config is wrong")
    assert Failure.parse(made.store.read(layout.failure(1, "embed", "2")).data, "") == expected
    assert read_failures(made.store, 1) == [expected]


def test_a_bug_of_ours_keeps_its_traceback_and_leaves_no_record(made, planned):
    before = made.files()
    with pytest.raises(ZeroDivisionError), reported("train", made.store.uri, planned.key):
        raise ZeroDivisionError
    assert made.files() == before


@pytest.mark.parametrize("early", [False, True])
def test_a_retry_of_the_same_run_stops_at_once_after_wrong_input(made, planned, capsys, early):
    place = {"run_id": "run-1"} if early else {"key": planned.key}
    fail(made, InputError("wrong"), "ingest", **place)
    before, worked = made.files(), []
    with pytest.raises(SystemExit) as stopped, reported("ingest", made.store.uri, **place):
        worked.append("in vain")
    assert (stopped.value.code, worked) == (2, [])
    assert made.files() == before
    assert capsys.readouterr().err == "alfamix ingest: wrong\n" * 2


def test_a_retry_after_a_failing_store_tries_again(made, planned):
    fail(made, StorageError("down"), "train", planned.key)
    with reported("train", made.store.uri, planned.key):
        pass
    assert fail(made, InputError("now this"), "train", planned.key) == 2
    assert [failure.line for failure in read_failures(made.store, 1)] == ["now this"]


def test_another_stage_of_the_run_is_not_stopped(made, planned):
    fail(made, InputError("wrong"), "ingest", run_id="run-1")
    fail(made, InputError("wrong"), "embed", planned.key, shard="0")
    with reported("finish", made.store.uri, run_id="run-1"), reported("embed", made.store.uri, planned.key, shard="1"):
        pass


def test_another_run_may_try_again_and_the_old_failure_is_not_its_own(made, planned, holder, noon):
    fail(made, InputError("wrong"), "train", planned.key)
    resumed, _ = rounds.begin(made.store, holder("run-2"), noon.replace(day=3))
    assert read_failures(made.store, 1) == []
    with reported("train", made.store.uri, resumed.key):
        pass
    assert fail(made, InputError("still wrong"), "train", resumed.key) == 2
    assert [failure.run_id for failure in read_failures(made.store, 1)] == ["run-2"]


def test_a_run_that_was_taken_over_does_not_stop_the_one_that_has_the_round(made, planned, holder, noon):
    rounds.begin(made.store, holder("run-2"), noon.replace(day=3))
    before = made.files()
    assert fail(made, LockedError("run-1 no longer holds the project"), "export", planned.key, run_id="run-1") == 2
    assert made.files() == before


def test_before_a_round_exists_the_record_is_the_run_s(made):
    assert fail(made, InputError("no samples"), "ingest", run_id="run-7") == 2
    failure = Failure.parse(made.store.read("failures/run-7.json").data, "")
    assert failure == Failure(stage="ingest", run_id="run-7", status=2, line="no samples")


def test_a_failure_that_cannot_be_recorded_is_still_told(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"not a folder")
    uri = (tmp_path / "file").as_uri()
    with pytest.raises(SystemExit) as stopped, reported("ingest", uri, run_id="run-1"):
        raise StorageError("no project there")
    assert stopped.value.code == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("alfamix ingest: the failure could not be recorded in the project: ")
    assert told[1] == "alfamix ingest: no project there"
