"""finish judges by the project, and releases only its own lock."""

from datetime import UTC, datetime

import pytest

from alfamix_core.errors import InputError, StorageError
from alfamix_core.project import layout, lock, rounds
from alfamix_core.project.failures import StageContext, reported
from alfamix_core.records.round import Outcome
from components.finish import stage


@pytest.fixture
def round_key(birds):
    birds.drop("a", "b", "c")
    return birds.ingest("run-1")


def fail(birds, error, stage_name, key="", shard="", run_id=""):
    with pytest.raises(SystemExit), reported(StageContext(stage_name, birds.uri, key, shard=shard, run_id=run_id)):
        raise error


def export(birds):
    outcome = Outcome(queries=1, strategy="random", exported_at=datetime.now(UTC))
    rounds.mark_exported(birds.store, 1, "run-1", outcome, datetime.now(UTC))


def holder(birds):
    return lock.read(birds.store)[0].holder


def test_an_exported_round_is_exported_and_the_lock_released(birds, round_key, events):
    export(birds)
    assert stage.run(birds.uri, "run-1") == "exported"
    assert holder(birds) is None
    assert events()[-1] == {"alfamix": "outcome", "state": "exported", "text": "round 1 is exported"}
    before = birds.files()
    assert stage.run(birds.uri, "run-1") == "exported"
    assert birds.files() == before


def test_a_round_whose_stages_failed_is_failed_with_their_lines(birds, round_key):
    fail(birds, InputError("the weights are wrong"), "train", round_key)
    fail(birds, StorageError("no answer"), "embed", round_key, shard="2")
    assert stage.run(birds.uri, "run-1") == "failed"
    record, _ = rounds.read(birds.store, 1)
    assert (record.state, record.reason) == ("failed", "embed shard 2: no answer; train: the weights are wrong")
    assert holder(birds) is None


def test_a_round_that_no_stage_explained_is_lost(birds, round_key, events):
    assert stage.run(birds.uri, "run-1") == "lost"
    record, _ = rounds.read(birds.store, 1)
    assert record.state == "failed"
    assert record.reason == "the run ended before the round was exported, and no stage said why"
    assert birds.ingest("run-2") == round_key


def test_a_stage_that_failed_and_succeeded_when_repeated_is_not_a_failure(birds, round_key):
    fail(birds, StorageError("no answer"), "ingest", run_id="run-1")
    fail(birds, StorageError("no answer"), "export", round_key)
    export(birds)
    assert stage.run(birds.uri, "run-1") == "exported"


def test_a_run_that_stopped_before_it_had_a_round_is_failed_with_its_line(birds, events):
    fail(birds, InputError("the project has no samples"), "ingest", run_id="run-1")
    events()
    assert stage.run(birds.uri, "run-1") == "failed"
    assert events() == [{"alfamix": "outcome", "state": "failed", "text": "the project has no samples"}]
    assert rounds.numbers(birds.store) == []


def test_an_idle_run_is_idle_and_writes_nothing(birds, round_key):
    before = birds.files()
    assert stage.run(birds.uri, "run-2") == "idle"
    assert birds.files() == before
    assert holder(birds).run_id == "run-1"


def test_a_run_that_was_taken_over_touches_neither_the_round_nor_the_lock(birds, round_key):
    birds.expire_lock()
    birds.ingest("run-2")
    before = birds.files()
    assert stage.run(birds.uri, "run-1") == "idle"
    assert birds.files() == before


def test_an_earlier_attempt_of_its_own_is_not_a_failure_of_the_run(birds, round_key):
    export(birds)
    fail(birds, StorageError("no answer"), "finish", run_id="run-3")
    assert stage.run(birds.uri, "run-3") == "idle"


def test_a_project_that_does_not_exist_is_idle(birds):
    birds.store.delete(layout.PROJECT)
    assert stage.run(birds.uri, "run-1") == "idle"
