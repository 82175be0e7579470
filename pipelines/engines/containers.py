"""Rounds in containers on this machine: the same pipeline and images, by the SDK's own Docker runner.

Every stage runs as a user without rights, on a read-only root, without any capability. It sees the work folder, the
folders of a project outside S3, and those variables of our environment that are listed here.

The SDK's runner lets Docker remove a container when it ends, and treats one that vanished before its exit status could
be read as a success; and a container outlives the process that started it. So we run and remove them ourselves.
"""

import codecs
import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount
from kfp import local
from kfp.local import docker_task_handler

from alfamix_core.errors import InputError, one_line
from alfamix_core.project import lock
from alfamix_core.project.rounds import read_settings
from alfamix_core.records.project import Project
from alfamix_core.storage import Store, access
from alfamix_core.storage.uris import path_of
from components.images import COMPONENTS, image
from components.stages import STAGES

USER = 65532
"""Number of the user in the containers if root starts them; any other user runs them under their own number."""

GPUS = "ALFAMIX_DOCKER_GPUS"
"""The environment variable with the number of GPUs that containers see, or all; without it they see none."""

_PROJECT, _DRIVER = "alfamix.project", "alfamix.driver"  # labels of our containers
_SHARED_MEMORY = "1g"  # for the processes that read images; Docker's 64 MB are too few
_KILLED = 137
_CA_BUNDLE = "AWS_CA_BUNDLE"
# All that containers take over from our environment, and the stages that need it: a stage decodes files of strangers
# and must know no secret that it does not need. The keys of S3 are looked up here, wherever they come from.
_COMPUTING = tuple(name for name, stage in STAGES.items() if stage.runtime == "gpu")
_TAKEN = {
    "ALFAMIX_LOG": COMPONENTS,
    "ALFAMIX_LOG_CONTEXT": COMPONENTS,
    "ALFAMIX_TRAIN_PROCESSES": ("train",),
    "OMP_NUM_THREADS": _COMPUTING,
    "OMP_WAIT_POLICY": _COMPUTING,
}
# Every stage writes its record into the project, so that all of them need the store.
_TAKEN_FOR_S3 = (
    access.ENDPOINT_URL,
    access.REGION,
    access.CA_BUNDLE,
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    _CA_BUNDLE,
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",  # with the next, what an older server understands
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_EC2_METADATA_DISABLED",
)
# The way to S3 and to pretrained weights, without user and password: a proxy that wants them is set in Docker's own
# configuration, which the engine passes to every container of its user.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def check(store: Store, network: str) -> None:
    """Check that rounds of the project can run in containers here, and pull images that are missing.

    Args:
        store: The project.
        network: Network of the containers, as Docker names it; '' for Docker's own.

    Raises:
        InputError: No engine, network or image; S3 cannot be reached; or the project's folder belongs to another user.
    """
    settings = read_settings(store)
    _mounts(store, settings)
    _s3_variables(store, settings)
    if _is_on_s3(store, settings):
        _check_endpoint(network)
    with _engine() as client:
        try:
            client.networks.get(network or "bridge")
        except NotFound:
            raise InputError(f'--network: Docker has no network "{network}" here') from None
        for component in COMPONENTS:
            _require_image(client, image(component))


@contextlib.contextmanager
def runner(store: Store, outputs: Path, network: str) -> Iterator[local.DockerRunner]:
    """Yield the SDK's runner for the project's round; at the end none of its containers is left.

    Containers of a run that was killed are removed first, and the lock that it held is released: only from here, not
    from within a container, can one see that its process is dead.

    Args:
        store: The project.
        outputs: Folder for the outputs of the stages; made if it is missing.
        network: Network of the containers, '' for Docker's own.

    Raises:
        InputError: As for ``check``.
    """
    check(store, network)
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (USER, USER)
    outputs.mkdir(parents=True, exist_ok=True)
    if (outputs.stat().st_uid, os.getuid()) != (user, user):
        os.chown(outputs, user, group)
    settings = read_settings(store)
    labels = {_PROJECT: store.uri, _DRIVER: lock.this_process()}
    arguments: dict[str, Any] = {
        "user": f"{user}:{group}",
        "read_only": True,
        "tmpfs": {"/tmp": "", "/root": "mode=0711"},  # /root: the work folder of root lies below it
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": _SHARED_MEMORY,
        "mounts": _mounts(store, settings),
        "labels": labels,
    }
    if network:
        arguments["network"] = network
    if count := os.environ.get(GPUS):
        arguments["device_requests"] = [DeviceRequest(count=_gpus(count), capabilities=[["gpu"]])]
    _remove_orphans(store.uri)
    lock.free_dead(store, datetime.now(UTC))
    containers = _Containers(labels, {image(stage): environment(store, settings, stage) for stage in COMPONENTS})
    original = docker_task_handler.run_docker_container
    before = {number: signal.signal(number, containers.end) for number in (signal.SIGTERM, signal.SIGINT)}
    docker_task_handler.run_docker_container = containers.run
    try:
        yield local.DockerRunner(**arguments)
    finally:
        docker_task_handler.run_docker_container = original
        for number, handler in before.items():
            signal.signal(number, handler)
        containers.remove()


class _Containers:
    """The containers of this process."""

    def __init__(self, labels: dict[str, str], environments: dict[str, dict[str, str]]) -> None:
        """Take the labels of all containers, and the environment of each by its image."""
        self._labels, self._environments = labels, environments
        self._ended = threading.Event()

    def run(
        self, client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any
    ) -> int:
        """Run a container to its end, print its output, and return its exit status, whatever the SDK expects."""
        if self._ended.is_set():
            return _KILLED
        variables = {**arguments.pop("environment", {}), **self._environments[image]}
        container = client.containers.run(
            image, command, detach=True, volumes=volumes, environment=variables, **arguments
        )
        try:
            for line in _lines(container.logs(stream=True, follow=True)):
                print(line)
            status = int(container.wait()["StatusCode"])
        except NotFound:
            status = _KILLED
        finally:
            with contextlib.suppress(APIError):
                container.remove(force=True)
        if status:
            print(f"the container of {image} ended with status {status}")
        return status

    def remove(self) -> None:
        """Remove the containers that are left, running or not."""
        with _engine() as client:
            _remove(client, [f"{name}={value}" for name, value in self._labels.items()])

    def end(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: start no further container, remove all, exit."""
        self._ended.set()
        self.remove()
        raise SystemExit(128 + number)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of an output that arrives in pieces, split at any byte."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
    if rest:
        yield rest


@contextlib.contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
    except DockerException as error:
        raise InputError(f"--engine docker: no Docker engine answers here: {' '.join(str(error).split())}") from None
    with contextlib.closing(client):
        yield client


def _require_image(client: docker.DockerClient, name: str) -> None:
    try:
        client.images.get(name)
    except ImageNotFound:
        try:
            client.images.pull(name)
        except DockerException as error:
            reason = one_line(error)
            raise InputError(f"image {name} is not here: {reason}; `make images` builds it") from None


def _remove(client: docker.DockerClient, labels: list[str]) -> None:
    for container in client.containers.list(all=True, filters={"label": labels}, ignore_removed=True):
        with contextlib.suppress(APIError):  # it has ended in the meantime
            container.remove(force=True)


def _remove_orphans(project_uri: str) -> None:
    """Remove the project's containers whose driving process of this machine is dead."""
    with _engine() as client:
        ours = client.containers.list(all=True, filters={"label": f"{_PROJECT}={project_uri}"}, ignore_removed=True)
        for driver in {container.labels.get(_DRIVER, "") for container in ours}:
            if lock.is_gone(driver):
                _remove(client, [f"{_PROJECT}={project_uri}", f"{_DRIVER}={driver}"])


# what a container sees


def environment(store: Store, settings: Project, stage: str) -> dict[str, str]:
    """Return the variables that the container of a stage sees."""
    taken = {name: os.environ[name] for name, stages in _TAKEN.items() if stage in stages and name in os.environ}
    proxies = {name: _without_user(value) for name, value in os.environ.items() if name.upper() in _PROXIES}
    driver = {lock.DRIVER: lock.this_process()} if stage == "ingest" else {}
    return {**taken, **proxies, **_s3_variables(store, settings), **driver, "HOME": "/tmp"}


def _without_user(proxy: str) -> str:
    """Return the address of a proxy without user and password; NO_PROXY holds neither."""
    scheme, separator, rest = proxy.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _s3_variables(store: Store, settings: Project) -> dict[str, str]:
    """Return the variables for the store: ours unchanged, and the keys that boto3 finds if ours are not set."""
    if not _is_on_s3(store, settings):
        return {}
    address = {name: os.environ[name] for name in _TAKEN_FOR_S3 if name in os.environ}
    ours = access.given()
    if not ours.access_key_id:
        return {**address, **_found_by_boto3()}
    names = (access.ACCESS_KEY_ID, access.SECRET_ACCESS_KEY, access.SESSION_TOKEN)
    keys = zip(names, (ours.access_key_id, ours.secret_access_key, ours.session_token), strict=True)
    return {**address, **{name: value for name, value in keys if value}}


def _found_by_boto3() -> dict[str, str]:
    """Return region and keys as boto3 finds them here: in the environment, a profile, or the machine's identity."""
    import boto3
    from botocore.exceptions import BotoCoreError

    variables: dict[str, str] = {}
    try:
        session = boto3.Session()
        if session.region_name:
            variables["AWS_DEFAULT_REGION"] = session.region_name
        credentials = session.get_credentials()
        if credentials is not None:
            keys = credentials.get_frozen_credentials()
            names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
            values = (keys.access_key, keys.secret_key, keys.token)
            variables |= {name: value for name, value in zip(names, values, strict=True) if value}
    except BotoCoreError as error:
        raise InputError(f"S3: {' '.join(str(error).split())}") from None
    return variables


def _is_on_s3(store: Store, settings: Project) -> bool:
    return any(uri.startswith("s3://") for uri in _uris(store, settings))


def _uris(store: Store, settings: Project) -> list[str]:
    weights = settings.model.weights
    return [store.uri, *settings.data_prefixes, *([weights] if "://" in weights else [])]


def _mounts(store: Store, settings: Project) -> list[Mount]:
    """Return the folders of this machine that containers see: the project, its data, its weights, a CA.

    Raises:
        InputError: The user of the containers does not own the project's folder, or something is missing.
    """
    user = os.getuid() or USER
    mounts = []
    for uri in _uris(store, settings):
        if not uri.startswith("file://"):
            continue
        path, is_project = path_of(uri), uri == store.uri
        if not path.exists():
            raise InputError(f"{uri} does not exist, and the containers of --engine docker need it")
        if is_project and path.stat().st_uid != user:
            raise InputError(
                f"{path}: containers run as user {user}, who does not own this folder; run `alfamix` as its owner (not "
                f"root), hand it over with `chown -R {user} {path}`, or keep the project on S3"
            )
        mounts.append(Mount(str(path), str(path), type="bind", read_only=not is_project))
    bundles = {os.environ.get(name, "") for name in (access.CA_BUNDLE, _CA_BUNDLE)} - {""}
    for bundle in sorted(bundles) if _is_on_s3(store, settings) else ():
        mounts.append(Mount(bundle, str(Path(bundle).resolve()), type="bind", read_only=True))
    return mounts


def _check_endpoint(network: str) -> None:
    for name in (access.ENDPOINT_URL, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if endpoint := os.environ.get(name):
            host = urlsplit(endpoint).hostname or ""
            if (host in ("localhost", "::1") or host.startswith("127.")) and network != "host":
                raise InputError(f"{name}: {endpoint} is this machine, which containers reach only with --network host")
            return


def _gpus(text: str) -> int:
    if text == "all":
        return -1
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise InputError(f'{GPUS}: must be a number of GPUs, or all, not "{text}"')
