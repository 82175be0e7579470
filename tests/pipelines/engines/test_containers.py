"""What containers are given, what stops them from being started, and what becomes of one that fails."""

import contextlib
import gc
import os
import subprocess
from pathlib import Path

import pytest
from kfp import dsl, local

from alfamix_core.errors import InputError
from alfamix_core.project import lock
from alfamix_core.storage import Store, open_store
from components.images import COMPONENTS, image
from pipelines.engines import containers as docker
from tests.servers.docker import serve

ROOT = Path(__file__).parents[3]
SETTINGS = '{"classes": ["a", "b"], "budget": 1, "name": "birds"%s}'


def project(folder: Path, more: str = "") -> Store:
    """Return a project that the containers' user owns."""
    folder.mkdir()
    (folder / "project.json").write_text(SETTINGS % more)
    if not os.getuid():
        os.chown(folder, docker.USER, docker.USER)
    return open_store(folder.as_uri())


def test_lines_are_put_together_from_pieces_cut_anywhere():
    whole = "α\nβ and γ\n\nlast".encode()
    for cut in range(len(whole)):
        assert list(docker._lines([whole[:cut], whole[cut:]])) == ["α", "β and γ", "", "last"]


def test_containers_get_what_reaches_s3_and_no_more(monkeypatch, tmp_path):
    store = project(tmp_path / "birds", ', "data_prefixes": ["s3://pictures"]')
    for name in [name for name in os.environ if name.startswith(("AWS_", "ALFAMIX_", "OMP_"))]:
        monkeypatch.delenv(name)
    profile = tmp_path / "credentials"
    profile.write_text("[labs]\naws_access_key_id = one\naws_secret_access_key = two\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_PROFILE", "labs")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store:8333")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ALFAMIX_WORK", "/somewhere")
    monkeypatch.setenv("UNRELATED", "secret")
    everywhere = {
        "AWS_ACCESS_KEY_ID": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_ENDPOINT_URL_S3": "http://store:8333",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "HOME": "/tmp",
    }
    assert docker.environment(store, docker.read_settings(store), "train") == everywhere | {"OMP_NUM_THREADS": "1"}
    assert docker.environment(store, docker.read_settings(store), "ingest") == everywhere | {
        lock.DRIVER: lock.this_process()
    }


def test_our_own_variables_of_the_store_pass_and_those_of_aws_then_not(monkeypatch, tmp_path):
    store = project(tmp_path / "birds", ', "data_prefixes": ["s3://pictures"]')
    ours = {"ACCESS_KEY_ID": "one", "SECRET_ACCESS_KEY": "two", "ENDPOINT_URL": "http://store:9000", "REGION": "x"}
    for name, value in ours.items():
        monkeypatch.setenv(f"ALFAMIX_S3_{name}", value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-another-service")
    seen = docker.environment(store, docker.read_settings(store), "score")
    assert {name: value for name, value in seen.items() if name.startswith("ALFAMIX_S3_")} == {
        f"ALFAMIX_S3_{name}": value for name, value in ours.items()
    }
    assert "of-another-service" not in seen.values()


@pytest.mark.parametrize("stage", COMPONENTS)
def test_a_stage_sees_the_variables_that_are_listed_for_it_and_no_other(monkeypatch, tmp_path, stage):
    store = project(tmp_path / "birds")
    names = {"ALFAMIX_LOG", "ALFAMIX_LOG_CONTEXT", "ALFAMIX_TRAIN_PROCESSES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"}
    monkeypatch.setattr(os, "environ", dict.fromkeys((*names, "ALFAMIX_S3_REGION", "AWS_REGION", "PATH"), "1"))
    seen = set(docker.environment(store, docker.read_settings(store), stage)) - {"HOME", lock.DRIVER}
    light = stage in ("ingest", "snapshot", "export", "finish")
    hidden = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} if light else set()
    assert seen == names - hidden - (set() if stage == "train" else {"ALFAMIX_TRAIN_PROCESSES"})


@pytest.mark.parametrize("prefix", ["s3://pictures", "file:///pictures"])
@pytest.mark.parametrize("stage", COMPONENTS)
def test_no_container_sees_a_secret_that_its_stage_does_not_need(monkeypatch, tmp_path, prefix, stage):
    """On S3 and off, only the variables that are listed pass, and a proxy loses its password."""
    store = project(tmp_path / "birds", f', "data_prefixes": ["{prefix}"]')
    for name in (
        *("ALFAMIX_KUBEFLOW_TOKEN", "ALFAMIX_SOMETHING_NEW", "ALFAMIX_SQS_URL", "OMP_SECRET", "AWS_SECRET_THING"),
        *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"),
        *("DATABASE_PASSWORD", "GITHUB_TOKEN", "KF_PIPELINES_TOKEN"),
    ):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    for name in ("HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://me:s3cr%40et@proxy:3128")
    monkeypatch.setenv("all_proxy", "me:s3cret@proxy:3128")
    monkeypatch.setenv("no_proxy", "localhost,.example.org")
    given = docker.environment(store, docker.read_settings(store), stage)
    assert not [name for name, value in given.items() if "s3cr" in value]
    assert {name: value for name, value in given.items() if "proxy" in name.lower()} == {
        "HTTP_PROXY": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "all_proxy": "proxy:3128",
        "no_proxy": "localhost,.example.org",
    }


def test_the_variables_that_containers_see_are_documented():
    page = (ROOT / "docs" / "images.md").read_text("utf-8")
    assert [name for name in (*docker._TAKEN, *docker._TAKEN_FOR_S3, *docker._PROXIES) if f"`{name}`" not in page] == []


def test_a_project_in_a_folder_gets_no_keys(monkeypatch, tmp_path):
    store = project(tmp_path / "birds")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    monkeypatch.setenv("ALFAMIX_S3_SECRET_ACCESS_KEY", "two")
    seen = docker.environment(store, docker.read_settings(store), "train")
    assert not [name for name in seen if name.startswith(("AWS_", "ALFAMIX_S3_"))]


def test_the_project_is_mounted_to_write_and_its_data_to_read(tmp_path):
    (tmp_path / "pictures").mkdir()
    store = project(tmp_path / "birds", f', "data_prefixes": ["{(tmp_path / "pictures").as_uri()}"]')
    mounts = docker._mounts(store, docker.read_settings(store))
    assert [(mount["Target"], mount["ReadOnly"]) for mount in mounts] == [
        (str(tmp_path / "birds"), False),
        (str(tmp_path / "pictures"), True),
    ]


def test_a_folder_that_is_missing_is_named(tmp_path):
    store = project(tmp_path / "birds", f', "data_prefixes": ["{(tmp_path / "pictures").as_uri()}"]')
    with pytest.raises(InputError, match="pictures does not exist, and the containers of --engine docker need it"):
        docker._mounts(store, docker.read_settings(store))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_project_that_containers_cannot_write_to_is_refused(tmp_path):
    store = project(tmp_path / "birds")
    os.chown(tmp_path / "birds", 4711, 4711)
    with pytest.raises(InputError, match="containers run as user 65532, who does not own this folder"):
        docker._mounts(store, docker.read_settings(store))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "ALFAMIX_S3_ENDPOINT_URL"])
@pytest.mark.parametrize("endpoint", ["http://localhost:8333", "http://127.0.0.1:9000", "http://[::1]:9000"])
def test_an_s3_on_this_machine_needs_its_network(monkeypatch, name, endpoint):
    monkeypatch.setenv(name, endpoint)
    docker._check_endpoint("host")
    with pytest.raises(InputError, match="is this machine, which containers reach only with --network host"):
        docker._check_endpoint("")


def test_gpus_are_a_number_or_all():
    assert (docker._gpus("all"), docker._gpus("2")) == (-1, 2)
    with pytest.raises(InputError, match='ALFAMIX_DOCKER_GPUS: must be a number of GPUs, or all, not "some"'):
        docker._gpus("some")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker leaves the socket that failed
def test_without_an_engine_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match="--engine docker: no Docker engine answers here: "):
        docker.check(project(tmp_path / "birds"), "")
    gc.collect()


@pytest.fixture
def engine(monkeypatch):
    """A Docker engine that runs nothing."""
    with serve() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.endpoint)
        yield engine


@pytest.mark.parametrize("status", [0, 2])
def test_the_container_of_each_stage_is_asked_for_with_its_own_variables(engine, tmp_path, monkeypatch, status):
    """Under the SDK's own runner, whose function the engine replaces while it runs."""
    monkeypatch.setenv("ALFAMIX_TRAIN_PROCESSES", "2")
    monkeypatch.setenv("ALFAMIX_KUBEFLOW_TOKEN", "s3cret")
    engine.status = status
    store = project(tmp_path / "birds")
    with (
        docker.runner(store, tmp_path / "outputs", "") as runner,
        contextlib.closing(docker.docker.from_env()) as client,
    ):
        for stage in COMPONENTS:
            arguments = {**runner.container_run_args, "environment": {"OF_THE_TASK": "1"}}
            run = docker.docker_task_handler.run_docker_container
            assert run(client, image=image(stage), command=["true"], volumes={}, **arguments) == status
    for stage, asked in zip(COMPONENTS, engine.created, strict=True):
        variables = dict(variable.split("=", 1) for variable in asked["Env"])
        assert variables.pop("OF_THE_TASK") == "1"
        assert variables == docker.environment(store, docker.read_settings(store), stage)
        assert ("ALFAMIX_TRAIN_PROCESSES" in variables) == (stage == "train")
        assert asked["HostConfig"]["ReadonlyRootfs"] is True
        assert asked["HostConfig"]["CapDrop"] == ["ALL"]
        assert asked["User"].split(":")[0] != "0"
    assert engine.left == 0


@pytest.fixture(scope="module")
def images():
    subprocess.run([ROOT / "Dockerfiles" / "build.sh"], check=True, stdout=subprocess.DEVNULL)


@dsl.component(base_image=image("ingest"), install_kfp_package=False)
def fails(status: int) -> str:
    import os

    os._exit(status)


@pytest.mark.docker
def test_a_container_that_fails_immediately_fails_the_run(images, tmp_path, capfd):
    """The SDK by itself would take one that Docker has already removed for a success."""
    store = project(tmp_path / "birds")
    with docker.runner(store, tmp_path / "outputs", "") as runner:
        local.init(runner=runner, pipeline_root=str(tmp_path / "outputs"))
        for status in (1, 2, 3, 7, 137):
            with pytest.raises(RuntimeError, match="FAILURE"):
                fails(status=status)
            assert f"ended with status {status}" in capfd.readouterr().out
    assert docker.docker_task_handler.run_docker_container.__module__.startswith("kfp.")


@pytest.mark.docker
def test_an_unknown_network_and_a_missing_image_are_named(images, tmp_path, monkeypatch):
    store = project(tmp_path / "birds")
    with pytest.raises(InputError, match='--network: Docker has no network "nowhere" here'):
        docker.check(store, "nowhere")
    monkeypatch.setattr(docker, "COMPONENTS", ("ingest", "no-such-stage"))
    with pytest.raises(InputError, match=r"alfamix-no-such-stage:.* is not here: .*; `make images` builds it"):
        docker.check(store, "")
