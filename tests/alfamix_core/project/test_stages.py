"""A stage repeats its own work after a storage error, as Kubeflow does not, and stops where an input is gone."""

import time
from pathlib import Path

import pytest

from alfamix_core.errors import InputError, MissingObjectError, StorageError
from alfamix_core.project import planning
from alfamix_core.project.failures import attempts, read_failures
from alfamix_core.project.patience import Patience, patience
from alfamix_core.project.stages import run_stage
from alfamix_core.telemetry.events import parse


@pytest.fixture
def planned(made, holder, noon):
    """A round in progress, of the run "run-1"."""
    made.drop("a", "b")
    return planning.begin(made.store, holder("run-1"), noon)[0]


@pytest.fixture
def patient(monkeypatch):
    """Two further attempts, after a tenth and a fifth of a second at most."""
    for name, value in (("RETRIES", "2"), ("BACKOFF_SECONDS", "0.1"), ("BACKOFF_FACTOR", "2"), ("LIMIT_SECONDS", "60")):
        monkeypatch.setenv(f"ALFAMIX_STAGE_{name}", value)


class Failing:
    """Work that fails a number of times before it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def exit_status(work, *arguments, **named) -> int:
    with pytest.raises(SystemExit) as stopped:
        run_stage("train", work, *arguments, **named)
    return stopped.value.code


def test_a_store_that_is_away_for_a_moment_costs_an_attempt_and_not_the_round(made, planned, patient, capsys):
    work = Failing(StorageError("s3://b/k: no answer"), MissingObjectError("not there yet"))
    began = time.monotonic()
    assert run_stage("train", work, made.store.uri, planned.key) == "done"
    assert time.monotonic() - began >= 0.075 + 0.15
    assert (work.calls, attempts(made.store, 1)) == (3, {("train", ""): 3})
    events = [event for line in capsys.readouterr().out.splitlines() if (event := parse(line))]
    assert [event["alfamix"] for event in events] == ["started", "warning", "warning", "finished"]
    assert events[1]["text"] == "s3://b/k: no answer; attempt 2 of 3 begins in 0 s"
    assert read_failures(made.store, 1) == []


def test_the_store_may_fail_before_the_work_begins(tmp_path, patient):
    """A file stands where the project's folder will be; it goes away while the stage waits."""
    import threading

    (tmp_path / "p").write_bytes(b"")
    timer = threading.Timer(0.02, (tmp_path / "p").unlink)
    timer.start()
    assert run_stage("ingest", Failing(), (tmp_path / "p").as_uri(), run_id="run-1") == "done"
    timer.join()


def test_attempts_come_to_an_end_and_the_last_error_is_recorded(made, planned, patient):
    work = Failing(*[StorageError(f"down {number}") for number in range(9)])
    assert exit_status(work, made.store.uri, planned.key) == 3
    assert work.calls == 3
    assert [(failure.status, failure.line) for failure in read_failures(made.store, 1)] == [(3, "down 2")]


@pytest.mark.parametrize("error", [InputError("wrong"), ZeroDivisionError("a bug")])
def test_what_repeating_cannot_help_is_not_repeated(made, planned, patient, error):
    work = Failing(error)
    with pytest.raises((SystemExit, ZeroDivisionError)):
        run_stage("train", work, made.store.uri, planned.key)
    assert work.calls == 1


def test_no_attempt_begins_after_the_stages_time_limit(made, planned, patient, monkeypatch):
    monkeypatch.setenv("ALFAMIX_STAGE_LIMIT_SECONDS", "0.05")
    work = Failing(StorageError("down"))
    assert exit_status(work, made.store.uri, planned.key) == 3
    assert work.calls == 1


def test_without_settings_of_a_platform_a_person_decides_about_another_attempt(made, planned):
    work = Failing(StorageError("down"))
    assert exit_status(work, made.store.uri, planned.key) == 3
    assert work.calls == 1


def test_what_a_failed_attempt_left_is_gone_before_the_next(made, planned, patient, tmp_path):
    folder, page = tmp_path / "features", tmp_path / "report.html"
    seen = []

    def work() -> None:
        seen.append((folder.exists(), page.exists()))
        folder.mkdir()
        (folder / "part-3").write_bytes(b"half")
        page.write_bytes(b"half")
        if len(seen) == 1:
            raise StorageError("down")

    run_stage("train", work, made.store.uri, planned.key, outputs=[str(folder), str(page)])
    assert seen == [(False, False), (False, False)]
    assert folder.exists()


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a folder of empty folders", "an empty file"])
def test_an_input_that_is_gone_is_one_line_that_names_it_and_says_fresh(made, planned, patient, tmp_path, left):
    """Kubeflow's cache hands on artifacts that a lifecycle rule of the bucket deleted; the launcher finds nothing."""
    path = tmp_path / "features"
    if left == "an empty file":
        path.write_bytes(b"")
    elif left != "nothing":
        (path / "sub").mkdir(parents=True)
        if left == "an empty folder":
            (path / "sub").rmdir()
    work = Failing()
    assert exit_status(work, made.store.uri, planned.key, inputs={"features": str(path)}) == 2
    assert work.calls == 0
    (failure,) = read_failures(made.store, 1)
    assert failure.line == (
        f'the input "features" is missing or empty at {path}: Kubeflow handed on what an earlier run wrote and its '
        "store no longer has; start the round again with --fresh"
    )


def test_every_artifact_of_a_list_must_be_there(made, planned, tmp_path):
    there, gone = tmp_path / "0", tmp_path / "1"
    there.mkdir()
    (there / "scores").write_bytes(b"1")
    assert run_stage("select", Failing(), made.store.uri, planned.key, inputs={"scores": [str(there)]}) == "done"
    assert exit_status(Failing(), made.store.uri, planned.key, inputs={"scores": [str(there), str(gone)]}) == 2
    assert str(gone) in read_failures(made.store, 1)[0].line


def test_waits_grow_by_the_factor_and_are_at_most_a_quarter_shorter():
    bearing = Patience(retries=5, seconds=30, factor=3)
    for retry, most in enumerate((30, 90, 270, 810)):
        assert all(0.75 * most <= bearing.wait(retry) <= most for _ in range(50))


@pytest.mark.parametrize(
    ("name", "value"),
    [("RETRIES", "many"), ("RETRIES", "-1"), ("BACKOFF_SECONDS", "nan"), ("BACKOFF_FACTOR", "0.5")],
)
def test_a_wrong_variable_is_one_line(monkeypatch, name, value):
    monkeypatch.setenv(f"ALFAMIX_STAGE_{name}", value)
    with pytest.raises(InputError, match=f'ALFAMIX_STAGE_{name} must be a number from .*, not "{value}"'):
        patience()


def test_the_fault_of_an_input_is_found_in_a_component_s_own_body(made, planned, tmp_path):
    from kfp import dsl

    from components.embed.component import embed

    with pytest.raises(SystemExit) as stopped:
        embed.python_func(
            project_uri=made.store.uri,
            key=planned.key,
            shard="0",
            snapshot=dsl.Dataset(uri=str(tmp_path / "gone")),
            model=dsl.Model(uri=str(tmp_path / "gone")),
            features=dsl.Dataset(uri=str(tmp_path / "features")),
        )
    assert stopped.value.code == 2
    assert "--fresh" in read_failures(made.store, 1)[0].line
    assert not Path(tmp_path / "features").exists()
