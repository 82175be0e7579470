"""What `make e2e-cluster` does its work with, against servers of this machine: no cluster was available."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pipelines import platform_settings
from pipelines.services import cron, schedule
from tests.cluster.cluster import Pods, Runs, eventually
from tests.cluster.surroundings import MissingError, Surroundings, check_the_bucket, given

URI = "s3://bucket/birds"


@pytest.fixture
def environment(server, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "kubeconfig").write_text("{}", "utf-8")
    return {
        "KF_PIPELINES_ENDPOINT": server.endpoint,
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "ALFAMIX_CLUSTER_NAMESPACE": "kubeflow",
        "ALFAMIX_CLUSTER_IMAGES": "registry.example.org:5000/team",
        "ALFAMIX_CLUSTER_BUCKET": "s3://alfamix/e2e/",
        "ALFAMIX_CLUSTER_S3_ENDPOINT": "http://seaweedfs.kubeflow:9000",
        "ALFAMIX_S3_ACCESS_KEY_ID": "key",
        "ALFAMIX_S3_SECRET_ACCESS_KEY": "secret",
    }


def test_what_is_given_becomes_settings_of_the_platform(environment, tmp_path: Path):
    around = given(environment)
    assert (around.bucket, around.secret, around.gpus) == ("s3://alfamix/e2e", "alfamix-s3", 0)
    (tmp_path / "platform.toml").write_text(around.platform(), "utf-8")
    settings = platform_settings.read(tmp_path / "platform.toml")
    assert settings.image("train").startswith("registry.example.org:5000/team/alfamix-train:")
    assert settings.storage.endpoint_url == "http://seaweedfs.kubeflow:9000"
    assert settings.train.gpus == settings.gpu.gpus == 0
    preloaded = given(environment | {"ALFAMIX_CLUSTER_IMAGES": "preloaded", "ALFAMIX_CLUSTER_GPUS": "1"})
    (tmp_path / "platform.toml").write_text(preloaded.platform(), "utf-8")
    settings = platform_settings.read(tmp_path / "platform.toml")
    assert (settings.images.pull_policy, settings.train.gpus) == ("Never", 1)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("KF_PIPELINES_ENDPOINT", "", "is not set; must be the address of the API"),
        ("KF_PIPELINES_ENDPOINT", "ml-pipeline:8888", 'must be the address of the API, not "ml-pipeline:8888"'),
        ("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9", "does not answer"),
        ("KUBECONFIG", "/none", "/none is not a file"),
        ("ALFAMIX_CLUSTER_NAMESPACE", "A b", "must be the namespace"),
        ("ALFAMIX_CLUSTER_IMAGES", "", 'must be a registry with a path, or "preloaded"'),
        ("ALFAMIX_CLUSTER_BUCKET", "alfamix", "must be s3://bucket/prefix"),
        ("ALFAMIX_CLUSTER_S3_ENDPOINT", "seaweedfs", "must be the address of the store for pods"),
        ("ALFAMIX_S3_SECRET_ACCESS_KEY", "", "is not set"),
    ],
)
def test_what_is_missing_is_one_line(environment, name: str, value: str, reason: str):
    with pytest.raises(MissingError) as missing:
        given(environment | {name: value})
    assert str(missing.value).startswith(name)
    assert reason in str(missing.value)
    assert "\n" not in str(missing.value)


def test_runs_are_listed_terminated_and_all_of_it_removed(kubeflow, server, settings):
    runs = Runs(kubeflow, settings, URI)
    before = runs.versions()
    first = kubeflow.start(settings, URI)
    second = kubeflow.start(settings, URI)
    server.move(first, "SUCCEEDED", ingest="SUCCEEDED")
    server.age(first, 1)
    assert [(run.run_id, list(run.stages)) for run in runs.all()] == [(second, []), (first, ["ingest"])]
    schedule.put(kubeflow, settings, URI, cron.parse("0 0 6 * * *"))
    (recurring,) = server.recurring
    server.fire(recurring)
    runs.terminate(second)
    assert server.runs[second]["state"] == "CANCELING"
    runs.remove()
    assert (server.runs, server.recurring, server.experiments) == ({}, {}, {})
    assert len(runs.versions()) == 1
    runs.remove_version(before)
    assert server.versions == {}


def test_the_clean_up_continues_after_a_step_that_failed_and_names_it(kubeflow, server, settings):
    runs = Runs(kubeflow, settings, URI)
    first, _ = (kubeflow.start(settings, URI) for _ in range(2))
    server.failing, server.failing_on = [500], f"DELETE /apis/v2beta1/runs/{first}"
    with pytest.raises(AssertionError, match=f"could not be removed: run {first}: .*broken on purpose"):
        runs.remove()
    assert list(server.runs) == [first]
    assert server.experiments == {}


def test_every_page_of_pipelines_is_read(kubeflow, server, settings):
    for number in range(5):
        server.pipelines[f"other-{number}"] = {"pipeline_id": f"other-{number}", "display_name": f"other-{number}"}
    version = kubeflow.version().version_id
    assert Runs(kubeflow, settings, URI).versions() == {version}


def test_a_version_that_was_there_before_stays(kubeflow, server, settings):
    runs = Runs(kubeflow, settings, URI)
    kubeflow.version()
    runs.remove_version(runs.versions())
    assert len(server.versions) == 1


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[tuple[Path, list[tuple[str, str, dict[str, list[str]]]]]]:
    """A kubeconfig for a server that has a namespace's pods, and what it was asked."""
    asked: list[tuple[str, str, dict[str, list[str]]]] = []
    states = {"train-2": "Running", "train-1": "Running", "train-0": "Succeeded"}

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            asked.append((self.command, parts.path, parse_qs(parts.query)))
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(length)
            pods = [{"metadata": {"name": name}, "status": {"phase": state}} for name, state in states.items()]
            answer = {"items": pods} if self.command == "GET" else {"metadata": {"name": "train-1"}}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_DELETE = do_PATCH = do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [cluster],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            }
        ),
        "utf-8",
    )
    yield path, asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_running_pods_of_a_stage_are_found_one_is_killed_without_grace_and_one_evicted(kubernetes):
    path, asked = kubernetes
    pods = Pods(path, "kubeflow")
    assert pods.of_stage("run-1", "train") == ["train-1", "train-2"]
    pods.kill("train-1")
    pods.evict("train-1")
    pods.close()
    (listed, deleted, patched) = asked
    assert patched[:2] == ("PATCH", "/api/v1/namespaces/kubeflow/pods/train-1/status")
    assert listed[2]["labelSelector"] == ["pipeline/runid=run-1,app.kubernetes.io/component=train"]
    assert deleted[:2] == ("DELETE", "/api/v1/namespaces/kubeflow/pods/train-1")
    assert deleted[2]["gracePeriodSeconds"] == ["0"]


def test_a_cluster_that_gives_no_access_is_one_line(kubernetes, tmp_path: Path):
    path, _ = kubernetes
    (tmp_path / "empty").write_text("{}", "utf-8")
    with pytest.raises(MissingError, match=r"KUBECONFIG: .*/empty gives no access to a cluster: "):
        Pods(tmp_path / "empty", "kubeflow")
    pods = Pods(path, "kubeflow")
    with pytest.raises(MissingError, match='the Secret "alfamix-s3" has no key ALFAMIX_S3_ACCESS_KEY_ID'):
        pods.check("alfamix-s3", ["ALFAMIX_S3_ACCESS_KEY_ID"], [])
    pods.close()


def test_a_bucket_that_cannot_be_written_is_one_line(tmp_path: Path):
    check_the_bucket((tmp_path / "store").as_uri())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingError, match="ALFAMIX_CLUSTER_BUCKET: "):
        check_the_bucket((tmp_path / "file").as_uri())


def test_waiting_returns_the_first_answer_and_says_what_did_not_come():
    answers = iter([[], [], ["a"]])
    assert eventually("a pod", 5, lambda: next(answers), 0.001) == ["a"]
    with pytest.raises(AssertionError, match="a pod did not come within 0 s"):
        eventually("a pod", 0, lambda: [], 0.001)


def test_every_record_of_surroundings_compiles(environment, tmp_path: Path):
    from pipelines.compile import compile_round

    around: Surroundings = given(environment)
    (tmp_path / "platform.toml").write_text(around.platform(), "utf-8")
    compile_round(tmp_path / "round.yaml", platform_settings.read(tmp_path / "platform.toml"))
