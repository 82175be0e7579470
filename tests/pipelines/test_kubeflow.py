"""The API by the SDK's real client, against a real HTTP server."""

import pytest

from alfamix_core.errors import InputError, StorageError
from pipelines.kubeflow import Kubeflow

URI = "s3://bucket/birds"


def test_the_first_start_uploads_the_pipeline_and_the_second_finds_it(kubeflow, server, settings):
    first, second = (kubeflow.start(settings, URI, force, not force) for force in (True, False))
    assert [run["runtime_config"]["parameters"] for run in server.runs.values()] == [
        {"project_uri": URI, "force": True, "fresh": False},
        {"project_uri": URI, "force": False, "fresh": True},
    ]
    assert first != second
    assert (len(server.pipelines), len(server.versions), len(server.experiments)) == (1, 1, 1)
    assert next(iter(server.experiments.values()))["display_name"] == "alfamix-birds"


def test_a_version_that_another_uploaded_at_the_same_moment_is_used(kubeflow, server):
    """The first listing comes before the other's upload, ours is refused, the second listing has it."""
    _, other = kubeflow.version()
    server.blind = 1
    assert kubeflow.version()[1] == other
    assert len(server.versions) == 1


def test_only_runs_of_the_project_that_have_not_ended_are_in_flight(kubeflow, server, settings):
    """Five runs, on three pages of two: of another project, ended, and three states that go on."""
    runs = [kubeflow.start(settings, URI) for _ in range(4)]
    kubeflow.start(settings, "s3://bucket/other")
    server.move(runs[0], "SUCCEEDED")
    server.move(runs[1], "RUNNING")
    server.move(runs[2], "CANCELING")
    assert [run.run_id for run, _ in kubeflow.in_flight(settings, URI)] == runs[1:]


def test_waiting_tells_of_each_stage_when_its_state_changes(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    steps = iter([("RUNNING", {"ingest": "RUNNING"}), ("RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"})])
    said = []

    def show(line):
        said.append(line)
        if "succeeded" not in line:
            state, tasks = next(steps, ("FAILED", {"ingest": "SUCCEEDED", "train": "FAILED"}))
            server.move(run_id, state, **tasks)

    server.move(run_id, "RUNNING", ingest="PENDING")
    assert kubeflow.follow(run_id, 0.01, show).state == "FAILED"
    assert [line.split() for line in said][:3] == [
        ["ingest", "pending"],
        ["ingest", "running"],
        ["ingest", "succeeded"],
    ]
    assert said[-1].split() == ["train", "failed"]


def test_waiting_survives_an_api_that_is_away_for_a_moment(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "SUCCEEDED")
    server.failing = [503, 500]
    assert kubeflow.follow(run_id, 0.01, print).state == "SUCCEEDED"
    server.failing = [503] * 20
    with pytest.raises(StorageError, match="HTTP 503: broken on purpose"):
        kubeflow.follow(run_id, 0.001, print)


def test_a_canceled_run_has_ended(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "CANCELED")
    assert kubeflow.follow(run_id, 0.01, print).state == "CANCELED"


def test_the_token_comes_from_the_environment(server, settings, monkeypatch):
    server.token = "s3cret"
    with pytest.raises(InputError, match=r"refused the login \(HTTP 401\): set \$ALFAMIX_KUBEFLOW_TOKEN") as refused:
        Kubeflow(server.endpoint)
    monkeypatch.setenv("ALFAMIX_KUBEFLOW_TOKEN", "s3cret")
    assert Kubeflow(server.endpoint).start(settings, URI) in server.runs
    assert "s3cret" not in str(refused.value)


def test_without_a_token_the_pods_own_is_used(server, settings, monkeypatch, tmp_path):
    server.token = "of-the-pod"
    (tmp_path / "token").write_text("of-the-pod")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert Kubeflow(server.endpoint).start(settings, URI) in server.runs


def test_a_namespace_is_for_deployments_of_many_users(server, settings):
    server.multi_user = True
    assert Kubeflow(server.endpoint, "team").start(settings, URI) in server.runs
    assert next(iter(server.experiments.values()))["namespace"] == "team"
    with pytest.raises(InputError, match="a namespace is required in multi-user mode"):
        Kubeflow(server.endpoint).start(settings, URI)


def test_errors_tell_who_must_act(kubeflow, server, settings):
    server.failing = [400]
    with pytest.raises(InputError, match=r"http://127.0.0.1:\d+ refused \(HTTP 400\): broken on purpose"):
        kubeflow.start(settings, URI)
    server.failing = [503]
    with pytest.raises(StorageError, match="failed: HTTP 503: broken on purpose"):
        kubeflow.start(settings, URI)
    with pytest.raises(StorageError, match="cannot be reached"):
        Kubeflow("http://127.0.0.1:9")
    with pytest.raises(InputError, match=r'must be the http:// or https:// address .* not "ml-pipeline"'):
        Kubeflow("ml-pipeline")


def test_nothing_is_printed_by_the_client(kubeflow, settings, capfd):
    kubeflow.start(settings, URI)
    assert capfd.readouterr() == ("", "")


def test_the_link_is_of_the_page_for_people(kubeflow, server, monkeypatch):
    assert kubeflow.link("run-1") == f"{server.endpoint}/#/runs/details/run-1"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
    assert kubeflow.link("run-1") == "https://kubeflow.example/pipeline/#/runs/details/run-1"
