"""The API by the SDK's real client, against a real HTTP server."""

import copy
import itertools
import re
import time
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from alfamix_core.errors import InputError, StorageError
from alfamix_core.project import lock
from alfamix_core.records.lock import Holder
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import parse
from components.images import COMPONENTS
from pipelines.engines.cluster import Cluster
from pipelines.engines.kubeflow import Kubeflow
from pipelines.services import cron, schedule

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


@pytest.mark.parametrize("kind", ["experiments", "pipelines", "pipeline_versions"])
def test_what_another_made_at_the_same_moment_is_used(kubeflow, server, settings, kind):
    """The first listing comes before the other creates it, ours is refused with 409, the second listing has it."""
    kubeflow.start(settings, URI)
    server.blind = {kind: 1}
    kubeflow.start(settings, URI)
    assert (len(server.pipelines), len(server.versions), len(server.experiments)) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["experiments", "pipelines", "pipeline_versions"])
def test_a_name_that_is_taken_and_never_listed_is_one_line(kubeflow, server, settings, kind):
    kubeflow.start(settings, URI)
    server.blind = {kind: 9}
    with pytest.raises(InputError, match=r"refused \(HTTP 409\): Already exist error"):
        kubeflow.start(settings, URI)


def test_only_runs_of_the_project_that_have_not_ended_are_in_flight(kubeflow, server, settings):
    """Five runs, on three pages of two: of another project, ended, and three states that have not ended."""
    runs = [kubeflow.start(settings, URI) for _ in range(4)]
    kubeflow.start(settings, "s3://bucket/other")
    server.move(runs[0], "SUCCEEDED")
    server.move(runs[1], "RUNNING")
    server.move(runs[2], "CANCELING")
    assert sorted(run.run_id for run in kubeflow.in_flight(settings, URI)) == sorted(runs[1:])


def test_a_row_that_stays_running_without_its_workflow_does_not_hold_the_project(kubeflow, server, settings, capsys):
    """Kubeflow never corrects the row of a run whose Workflow was deleted; a run may take 24 h, and 2 more."""
    lost, slow, new = (kubeflow.start(settings, URI) for _ in range(3))
    for run_id, hours in ((lost, 26.1), (slow, 25.9), (new, 0.1)):
        server.move(run_id, "RUNNING")
        server.age(run_id, hours)
    assert [run.run_id for run in kubeflow.in_flight(settings, URI)] == [new, slow]
    assert [run.run_id for run in kubeflow.stale] == [lost]
    (warning,) = [event for line in capsys.readouterr().out.splitlines() if (event := parse(line))]
    assert warning["alfamix"] == "warning"
    assert warning["text"].startswith(f"run {lost}, created at ")
    kubeflow.in_flight(settings, URI)
    assert capsys.readouterr().out == ""
    assert [kubeflow.is_over(kubeflow.run(run_id)) for run_id in (lost, slow, new)] == [True, False, False]


def test_a_run_that_only_its_age_calls_over_keeps_its_lock_and_is_not_cancelled(
    kubeflow, server, settings, tmp_path, monkeypatch
):
    """It was compiled with 72 hours, and is looked at by a command whose settings say 24."""
    monkeypatch.setattr(kubeflow, "platform", kubeflow.platform.model_copy(update={"run_hours": 72}))
    schedule.put(kubeflow, settings, URI, cron.parse("0 0 6 * * *"))
    (recurring,) = server.recurring
    run_id = server.fire(recurring)
    server.age(run_id, 30)
    store = open_store(tmp_path.as_uri())
    now = datetime.now(UTC)
    lock.acquire(store, Holder(run_id=run_id), now, now + timedelta(hours=40))
    monkeypatch.undo()
    assert Cluster(store, server.endpoint).free_lock() == ""
    assert schedule.remove(kubeflow, settings, URI).left == (recurring,)
    assert server.runs[run_id]["state"] == "RUNNING"


CALLS = {
    "start": lambda kubeflow, settings, run_id: kubeflow.start(settings, URI),
    "run": lambda kubeflow, settings, run_id: kubeflow.run(run_id),
    "in_flight": lambda kubeflow, settings, run_id: kubeflow.in_flight(settings, URI),
    "follow": lambda kubeflow, settings, run_id: kubeflow.follow(run_id, 0.001, str, patience=0.01),
    "schedule": lambda kubeflow, settings, run_id: schedule.show(kubeflow, settings, URI),
    "release": lambda kubeflow, settings, run_id: kubeflow.api_version(),
}


def started(kubeflow, server, settings):
    """Start two runs, of which one has ended, and make a schedule; return the id of the first."""
    run_id, other = (kubeflow.start(settings, URI) for _ in range(2))
    server.move(run_id, "SUCCEEDED", ingest="SUCCEEDED", embed=["SUCCEEDED", "FAILED"], shards=2)
    server.move(other, "RUNNING", ingest="RUNNING")
    schedule.put(kubeflow, settings, URI, cron.parse("0 0 6 * * *"))
    return run_id


def error_of(call):
    """Return the error that a call ends with, which must be ours, or None."""
    try:
        call()
    except (InputError, StorageError) as error:
        return error
    return None


NO_ANSWERS = (b"<html></html>", b"", b"[]", b'"text"', b"null", b"7", b"\xff\xfe", b"{")
PATHS = ("healthz", "runs", "runs/[^/]+", "experiments", "pipelines", "pipelines/[^/]+/versions", "recurringruns")


@pytest.mark.parametrize("call", CALLS)
def test_a_page_to_log_in_is_not_taken_for_an_answer(kubeflow, server, settings, call):
    """Whichever request the page answers: a listing that is no listing must not look empty."""
    run_id = started(kubeflow, server, settings)
    for body, path in itertools.product(NO_ANSWERS, PATHS):
        seen = []

        def distort(asked, answer, body=body, path=path, seen=seen):
            if not re.fullmatch(f"/apis/v2beta1/{path}", asked):
                return answer
            seen.append(asked)
            return body

        server.distort = distort
        error = error_of(lambda: CALLS[call](kubeflow, settings, run_id))
        assert (error is None) == (not seen), (body, path)
        if error is not None:
            assert "the answer is not one of the Kubeflow API" in str(error)
            assert "\n" not in str(error)


ODD = (None, "", "x", 0, -1, 1.5, True, [], {}, [[]], [None], {"a": 1}, "2026-01-01T00:00:00", "0001-01-01", "9" * 400)


def mutated(random, answer):
    """Return an answer of which one part is missing, or is something else."""
    answer = copy.deepcopy(answer)
    parent, key, node = None, None, answer
    while isinstance(node, dict | list) and node and (parent is None or random.random() < 0.7):
        key = random.choice(sorted(node) if isinstance(node, dict) else range(len(node)))
        parent, node = node, node[key]
    if parent is not None and random.random() < 0.7:
        parent[key] = random.choice(ODD)
    elif parent is not None:
        del parent[key]
    return answer


@pytest.mark.parametrize("call", CALLS)
def test_whatever_an_answer_lacks_a_call_ends_with_an_answer_or_one_line(kubeflow, either, settings, call):
    run_id = started(kubeflow, either, settings)
    for seed in range(60):
        random = Random(seed)
        either.distort = lambda _, answer, random=random: mutated(random, answer)
        before = len(either.requests)
        error = error_of(lambda: CALLS[call](kubeflow, settings, run_id))
        assert "\n" not in str(error or "")
        assert len(either.requests) - before < 100


@pytest.mark.parametrize("token", ["of the same page", "of a new page"])
def test_a_listing_without_an_end_ends_with_one_line(kubeflow, server, settings, token):
    """The same page again and again, or one empty page after the other."""
    kubeflow.start(settings, URI)
    asked = []

    def distort(path, answer):
        if not path.endswith("/runs"):
            return answer
        asked.append(path)
        assert len(asked) < 20
        return (
            {"runs": answer["runs"], "next_page_token": "0"}
            if token == "of the same page"
            else {"next_page_token": "0" * len(asked)}
        )

    server.distort = distort
    with pytest.raises(StorageError, match="the listing of runs has no end"):
        kubeflow.in_flight(settings, URI)


@pytest.mark.parametrize("hours", [1, 27])
def test_a_time_without_a_zone_is_utc(kubeflow, server, settings, hours):
    run_id = kubeflow.start(settings, URI)
    server.age(run_id, hours)
    server.runs[run_id]["created_at"] = server.runs[run_id]["created_at"].removesuffix("Z")
    assert [run.run_id for run in kubeflow.in_flight(settings, URI)] == ([run_id] if hours == 1 else [])
    assert kubeflow.is_over(kubeflow.run(run_id)) == (hours == 27)


def test_a_long_history_is_not_read(kubeflow, server, settings):
    """Pages of two: of 20 runs that ended none is listed, and of 20 lost ones those on the page of the first."""
    fresh = kubeflow.start(settings, URI)
    for index in range(40):
        run_id = server.add_run(server.runs[fresh])
        server.move(run_id, "SUCCEEDED" if index % 2 else "RUNNING")
        server.age(run_id, 100 + index)
    server.requests.clear()
    assert [run.run_id for run in kubeflow.in_flight(settings, URI)] == [fresh]
    assert len([path for _, path in server.requests if path.endswith("/runs")]) == 1
    assert len(kubeflow.stale) == 1


@pytest.fixture(params=["2.17.0", "2.18.0"])
def either(request, server):
    """The server, as either release."""
    server.release = request.param
    return server


def test_waiting_shows_each_stage_when_its_state_changes(kubeflow, either, settings):
    run_id = kubeflow.start(settings, URI)
    steps = iter([("RUNNING", {"ingest": "SUCCEEDED", "train": "RUNNING"})])
    lines = []

    def show(line):
        lines.append(line)
        if "succeeded" not in line:
            state, stages = next(steps, ("FAILED", {"ingest": "SUCCEEDED", "train": "FAILED"}))
            either.move(run_id, state, **stages)

    either.move(run_id, "RUNNING", ingest="RUNNING")
    assert kubeflow.follow(run_id, 0.01, show).state == "FAILED"
    assert [line.split() for line in lines] == [
        ["ingest", "running"],
        ["ingest", "succeeded"],
        ["train", "running"],
        ["train", "failed"],
    ]


def test_the_nine_stages_are_shown_and_the_shards_counted(kubeflow, either, settings):
    """Of 16 shards 7 are embedded, 3 of them out of the cache, 2 are at it, and 4 are scored; the rest wait."""
    run_id = kubeflow.start(settings, URI)
    done = dict.fromkeys(("ingest", "snapshot", "train", "evaluate"), "SUCCEEDED")
    cached = "SKIPPED" if either.release == "2.17.0" else "CACHED"
    embed = [cached] * 3 + ["SUCCEEDED"] * 4 + ["RUNNING"] * 2
    either.move(run_id, "RUNNING", shards=16, **done, embed=embed, score=["SUCCEEDED"] * 4)
    stages = kubeflow.run(run_id).stages
    assert [stage.line(name).split() for name, stage in stages.items()] == [
        *([name, "succeeded"] for name in done),
        ["embed", "running", "7/16"],
        ["score", "running", "4/16"],
    ]
    either.move(
        run_id,
        "SUCCEEDED",
        shards=16,
        **done,
        **{name: ["SUCCEEDED"] * 16 for name in ("embed", "score")},
        **dict.fromkeys(("select", "export", "finish"), "SUCCEEDED"),
    )
    lines = [stage.line(name).split() for name, stage in kubeflow.run(run_id).stages.items()]
    assert [line[0] for line in lines] == list(COMPONENTS)
    assert lines[4:6] == [["embed", "succeeded", "16/16"], ["score", "succeeded", "16/16"]]


def test_one_shard_that_failed_is_the_stages_failure(kubeflow, either, settings):
    run_id = kubeflow.start(settings, URI)
    either.move(run_id, "RUNNING", shards=3, embed=["SUCCEEDED", "FAILED", "RUNNING"])
    (stage,) = kubeflow.run(run_id).stages.values()
    assert stage.line("embed").split() == ["embed", "failed", "1/3"]


def test_a_stage_that_argo_repeated_is_shown_by_its_latest_attempt(kubeflow, either, settings):
    """A DAG that is repeated at a higher level leaves the nodes of its first attempt under the same names."""
    run_id = kubeflow.start(settings, URI)
    train, embed = ["FAILED", "FAILED", "SUCCEEDED"], ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    either.move(run_id, "RUNNING", shards=3, train=train, embed=[*embed, "SUCCEEDED"])
    lines = [stage.line(name).split() for name, stage in kubeflow.run(run_id).stages.items()]
    assert lines == [["train", "succeeded"], ["embed", "succeeded", "3/3"]]
    either.move(run_id, "RUNNING", shards=3, train=["SUCCEEDED", "FAILED"], embed=[*embed, "RUNNING"])
    lines = [stage.line(name).split() for name, stage in kubeflow.run(run_id).stages.items()]
    assert lines == [["train", "failed"], ["embed", "running", "2/3"]]
    either.move(run_id, "FAILED", shards=3, embed=[*embed, "FAILED"])
    lines = [stage.line(name).split() for name, stage in kubeflow.run(run_id).stages.items()]
    assert lines == [["embed", "failed", "2/3"]]


ODD = {
    "state": [["X"], "X", 7, {}],
    "created_at": [None, "", ["X"], "yesterday", 7, "9" * 5000],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in ODD.items() for value in values])
def test_waiting_ends_with_one_line_when_the_answers_are_odd(kubeflow, server, settings, field, value):
    run_id = kubeflow.start(settings, URI)
    server.distort = lambda path, answer: answer | {field: value} if path.endswith(run_id) else answer
    with pytest.raises(StorageError, match=r"could not be followed for 0\.1 s") as raised:
        kubeflow.follow(run_id, 0.01, print, patience=0.1)
    line = str(raised.value)
    assert "the answer is not one of the Kubeflow API" in line
    assert len(line) < 600
    assert "\n" not in line


@pytest.mark.parametrize("count", ["9" * 4000, "9" * 5000, "-1", "x", 10**9, 1.5, [3]])
def test_a_loop_without_a_number_of_iterations_is_no_answer(kubeflow, server, settings, count):
    server.release = "2.18.0"
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "RUNNING", shards=2, embed=["RUNNING"])
    for task in server.runs[run_id]["tasks"]:
        task["type_attributes"] = {"iteration_count": count}
    with pytest.raises(StorageError, match="the answer is not one of the Kubeflow API") as raised:
        kubeflow.run(run_id)
    assert len(str(raised.value)) < 500


def test_an_answer_that_is_nested_too_deeply_is_one_line(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    server.distort = lambda path, answer: b"[" * 100_000
    for ask in (
        lambda: schedule.put(kubeflow, settings, URI, cron.parse("0 0 6 * * *")),
        lambda: schedule.remove(kubeflow, settings, URI),
        lambda: kubeflow.in_flight(settings, URI),
        lambda: kubeflow.run(run_id),
    ):
        with pytest.raises(StorageError, match="the answer is not one of the Kubeflow API"):
            ask()


def test_what_another_thread_prints_while_the_client_asks_is_printed(kubeflow, server, settings, capsys):
    server.before = lambda client: print("from the server's thread")
    kubeflow.start(settings, URI)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert set(lines) == {"from the server's thread"}


def test_waiting_survives_an_api_that_is_away_or_refuses_for_a_while(kubeflow, server, settings):
    """A token that rotates is refused, a proxy that restarts does not know the path."""
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "SUCCEEDED")
    server.failing = [503, 401, 403, 404, 500, 429]
    assert kubeflow.follow(run_id, 0.001, print).state == "SUCCEEDED"
    assert server.failing == []


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_waiting_ends_with_one_line_when_the_api_stays_away(kubeflow, server, settings, status):
    run_id = kubeflow.start(settings, URI)
    server.failing = [status] * 1000
    began = time.monotonic()
    with pytest.raises((InputError, StorageError)) as raised:
        kubeflow.follow(run_id, 0.01, print, patience=0.2)
    assert time.monotonic() - began < 10
    line = str(raised.value)
    assert line.startswith(f"run {run_id} could not be followed for 0.2 s and may continue on Kubeflow: http://")
    assert f"(HTTP {status}): " in line or f"HTTP {status}: broken on purpose" in line
    assert "\n" not in line
    assert len(server.failing) > 980, "the waits grow"


def test_a_canceled_run_has_ended(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "CANCELED")
    assert kubeflow.follow(run_id, 0.01, print).state == "CANCELED"


def test_waiting_ends_when_the_run_must_be_over_whatever_its_row_says(kubeflow, server, settings):
    run_id = kubeflow.start(settings, URI)
    server.move(run_id, "RUNNING", ingest="RUNNING")
    server.age(run_id, 27)
    assert kubeflow.follow(run_id, 0.01, print).state == "RUNNING"


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


def test_errors_name_who_must_act(kubeflow, server, settings):
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


@pytest.mark.parametrize(
    ("pages", "below"),
    [
        ("https://kubeflow.example", "https://kubeflow.example/_/pipeline"),
        ("https://kubeflow.example/", "https://kubeflow.example/_/pipeline"),
        ("https://kubeflow.example/pipeline", "https://kubeflow.example/pipeline"),
        ("https://kubeflow.example/_/pipeline/", "https://kubeflow.example/_/pipeline"),
    ],
)
def test_the_link_on_a_kubeflow_of_many_users_is_below_the_dashboard_and_names_the_namespace(
    server, monkeypatch, pages, below
):
    server.multi_user = True
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", pages)
    assert Kubeflow(server.endpoint, "team").link("run-1") == f"{below}/?ns=team#/runs/details/run-1"


@pytest.mark.parametrize(("release", "version"), [("2.17.0", "2.17.0"), ("unknown", "0123abc")])
def test_the_api_says_its_release_or_its_commit(kubeflow, server, release, version):
    server.release = release
    assert kubeflow.api_version() == version
