"""`alfamix schedule` and `alfamix round --engine kubeflow`."""

import json
import threading
import time

import pytest


@pytest.fixture
def birds(birds, server, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.endpoint)
    return birds


def failed(birds, *arguments):
    result = birds.alfamix(*arguments)
    assert result.stderr.count("\n") == 1, result.output
    return result.exit_code, result.stderr


def test_a_schedule_is_explained_before_it_is_set_and_then_shown_and_removed(birds, server):
    said = birds.run("schedule", "set", "birds", "--cron", "0 0 6 * * *").splitlines()
    assert said[0] == "0 0 6 * * *: At 06:00 (UTC)"
    assert [line.endswith(" 06:00:00 UTC") for line in said[1:4]] == [True] * 3
    (key,) = server.recurring
    assert said[4:] == [f"set as recurring run {key}"]
    assert f"recurring run {key}: 0 0 6 * * *: At 06:00 (UTC)\n" in birds.run("schedule", "show", "birds")
    assert json.loads(birds.run("schedule", "show", "birds", "--json"))[0]["cron"] == "0 0 6 * * *"
    assert "no change: set as recurring run" in birds.run("schedule", "set", "birds", "--cron", "0  0 6 * * *")
    run = server.fire(key)
    said = birds.run("schedule", "remove", "birds")
    assert said.startswith(f"no more runs start by schedule\nrecurring run {key} has a run in flight or may")
    assert birds.run("schedule", "show", "birds").startswith("no schedule is set\nrecurring run")
    server.move(run, "SUCCEEDED")
    assert birds.run("schedule", "remove", "birds").endswith(f"deleted recurring run {key}\n")
    assert birds.run("schedule", "remove", "birds") == "no schedule was set\n"


def test_a_recurring_run_that_somebody_edited_is_shown_with_what_is_wrong(birds, server):
    birds.run("schedule", "set", "birds", "--cron", "0 0 6 * * *")
    (key,) = server.recurring
    server.recurring[key]["trigger"] = {"periodic_schedule": {"interval_second": "60"}}
    assert f'recurring run {key}: cron "": must have 6 fields' in birds.run("schedule", "show", "birds")
    assert "no change" not in birds.run("schedule", "set", "birds", "--cron", "0 0 6 * * *")
    assert f"recurring run {key}: cron" not in birds.run("schedule", "show", "birds")


def test_a_plan_of_a_schedule_needs_no_cluster(birds, server):
    assert "MON" in birds.run("schedule", "set", "birds", "--cron", "0 0 6 ? * MON", "--plan")
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("schedule", "set", "birds", "--cron", "0 6 * * *"), 2, "must have 6 fields"),
        (("schedule", "set", "birds", "--cron", "0 0 25 * * *"), 2, 'cron: hour "25": must be 0 to 23'),
        (("schedule", "show", "new"), 2, "is not a project"),
        (("schedule", "show", "birds", "--endpoint", "kf"), 2, "--endpoint: must be the http:// or https:// address"),
        (("schedule", "show", "birds", "--endpoint", "http://127.0.0.1:9"), 3, "cannot be reached"),
        (("round", "birds", "--engine", "kubeflow", "--endpoint", ""), 2, "--endpoint: must be"),
        (("round", "birds", "--engine", "slurm"), 2, '--engine: must be local, docker or kubeflow, not "slurm"'),
    ],
)
def test_what_cannot_be_is_one_line(birds, server, arguments, status, message):
    before = birds.tree()
    code, line = failed(birds, *arguments)
    assert (code, message in line) == (status, True), line
    assert (birds.tree(), server.recurring, server.runs) == (before, {}, {})


def test_a_round_on_a_cluster_prints_its_run_and_its_link(birds, server):
    said = birds.run("round", "birds", "--engine", "kubeflow", "--force", "--fresh")
    (run,) = server.runs.values()
    assert said == (
        "round 1 · the first round · up to 100 queries of 3 samples · random\n"
        f"run {run['run_id']}\n{server.endpoint}/#/runs/details/{run['run_id']}\n"
    )
    assert run["runtime_config"]["parameters"] == {"project_uri": birds.project.as_uri(), "force": True, "fresh": True}
    told = json.loads(birds.run("round", "birds", "--engine", "kubeflow", "--json"))
    assert told["run_id"] in server.runs


@pytest.fixture
def ending(server):
    """End the run as soon as it is there; ``leave`` writes what its stages would leave in the project."""
    threads = []

    def ending(state, leave=lambda run_id: None):
        def end():
            while not server.runs:
                time.sleep(0.01)
            (run_id,) = server.runs
            leave(run_id)
            server.move(run_id, state, ingest=state)

        threads.append(threading.Thread(target=end, daemon=True))
        threads[0].start()

    yield ending
    for thread in threads:
        thread.join()


@pytest.fixture
def quick(monkeypatch):
    """Look every 20 ms instead of every 5 s."""
    from pipelines.engines.kubeflow import Kubeflow

    follow = Kubeflow.follow
    monkeypatch.setattr(Kubeflow, "follow", lambda self, run_id, _, show: follow(self, run_id, 0.02, show))


WAIT = ("round", "birds", "--engine", "kubeflow", "--wait")


def test_waiting_for_a_run_that_stopped_says_its_line_and_ends_with_its_status(birds, ending, quick):
    def leave(run_id):
        failure = {"stage": "ingest", "shard": "", "run_id": run_id, "status": 3, "line": "the store is down"}
        birds.put(f"failures/{run_id}.json", failure)

    ending("FAILED", leave)
    code, line = failed(birds, *WAIT)
    assert (code, line) == (3, "alfamix: round 1, ingest: the store is down\n")


def test_waiting_for_a_run_that_found_nothing_to_do_is_no_error(birds, ending, quick):
    ending("SUCCEEDED")
    code, line = failed(birds, *WAIT)
    assert (code, line[:24]) == (0, "alfamix: no round: the r")


def test_waiting_for_a_run_that_was_killed_names_where_to_look(birds, ending, quick, server):
    ending("CANCELED")
    code, line = failed(birds, *WAIT)
    assert code == 1
    assert "round 1 ended without saying why; its log is http://127.0.0.1" in line


def test_the_doctor_says_that_kubeflow_was_upgraded_and_renewing_heals_it(birds, server):
    birds.run("schedule", "set", "birds", "--cron", "0 0 6 * * *")
    birds.run("doctor", "birds", "--engine", "kubeflow")
    server.release = "2.18.0"
    done = birds.alfamix("doctor", "birds", "--engine", "kubeflow")
    assert done.exit_code == 1
    assert "was made on Kubeflow Pipelines 2.17.0 and the API is 2.18.0" in " ".join(done.stdout.split())
    assert "no change" not in birds.run("schedule", "set", "birds", "--cron", "0 0 6 * * *", "--renew")
    birds.run("doctor", "birds", "--engine", "kubeflow")
