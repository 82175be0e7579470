"""The surroundings of `make e2e-cluster`: all from the environment, each checked before anything is made."""

import os
import re
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from alfamix_core.errors import AlfamixError
from alfamix_core.storage import open_store
from pipelines.engines import kubeflow_client

PRELOADED = "preloaded"


class MissingError(Exception):
    """Something is missing or invalid; one line says what."""


@dataclass(frozen=True)
class Surroundings:
    """A cluster and what the test may use of it.

    Attributes:
        endpoint: Kubeflow Pipelines API as this machine reaches it.
        kubeconfig: file by which pods are found and killed.
        namespace: namespace of the pods of runs.
        registry: registry and path of the images; ``preloaded`` for images that the nodes have under their own names.
        bucket: s3://bucket/prefix below which projects are made, and removed.
        endpoint_of_pods: address of the store as pods reach it; '' for AWS.
        secret: Secret of the namespace with the keys of the store.
        gpus: GPUs for the stages that use one; 0 on a cluster without any.
    """

    endpoint: str
    kubeconfig: Path
    namespace: str
    registry: str
    bucket: str
    endpoint_of_pods: str
    secret: str
    gpus: int

    def platform(self) -> str:
        """Return the platform's settings as TOML; small enough for a cluster of one laptop."""
        images = "" if self.registry == PRELOADED else f'registry = "{self.registry}"\n'
        sizes = 'cpu_request = "100m", cpu_limit = "2", memory_request = "512Mi", memory_limit = "3Gi"'
        tolerations = "" if self.gpus else ", tolerations = []"
        return (
            "run_hours = 2\n"
            'labels = { "app.kubernetes.io/instance" = "alfamix-e2e" }\n'
            f"small = {{ {sizes} }}\n"
            f"cpu = {{ {sizes} }}\n"
            f"gpu = {{ {sizes}, gpus = {self.gpus}{tolerations} }}\n"
            f"train = {{ {sizes}, gpus = {self.gpus}{tolerations} }}\n"
            f'[images]\n{images}pull_policy = "{"Never" if self.registry == PRELOADED else "IfNotPresent"}"\n'
            f'[storage]\nsecret = "{self.secret}"\nendpoint_url = "{self.endpoint_of_pods}"\nregion = "us-east-1"\n'
            "[loader]\nworkers = 0\n"
            "[retry]\nbackoff_seconds = 5\n"
            '[environment]\nOMP_NUM_THREADS = "1"\n'
            "[stages]\n"
            + "".join(
                f"{name} = {{ hours = 1 }}\n"
                for name in ("ingest", "snapshot", "train", "evaluate", "embed", "score", "select", "export")
            )
        )


def given(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Read and check what is given.

    Raises:
        MissingError: a variable that is not set or not what it must be, or an API that does not answer.
    """
    endpoint = _matching(environment, "KF_PIPELINES_ENDPOINT", r"https?://\S+", "the address of the API")
    kubeconfig = Path(_matching(environment, "KUBECONFIG", r".+", "the file of the cluster's access"))
    if not kubeconfig.is_file():
        raise MissingError(f"KUBECONFIG: {kubeconfig} is not a file")
    namespace = _matching(environment, "ALFAMIX_CLUSTER_NAMESPACE", r"[a-z0-9-]{1,63}", "the namespace of runs' pods")
    registry = _matching(
        environment, "ALFAMIX_CLUSTER_IMAGES", r"[a-z0-9][\w./:-]*", f'a registry with a path, or "{PRELOADED}"'
    )
    bucket = _matching(environment, "ALFAMIX_CLUSTER_BUCKET", r"s3://[^/]+/.+", "s3://bucket/prefix").rstrip("/")
    pods = environment.get("ALFAMIX_CLUSTER_S3_ENDPOINT", "")
    if pods and not urlsplit(pods).netloc:
        raise MissingError(f'ALFAMIX_CLUSTER_S3_ENDPOINT: must be the address of the store for pods, not "{pods}"')
    for name in ("ALFAMIX_S3_ACCESS_KEY_ID", "ALFAMIX_S3_SECRET_ACCESS_KEY"):
        _matching(environment, name, r".+", "set, for this machine makes and removes projects")
    gpus = _matching({"n": "0", **_only(environment, "ALFAMIX_CLUSTER_GPUS", "n")}, "n", r"\d+", "a number of GPUs")
    try:
        authority = environment.get(kubeflow_client.CA)
        context = ssl.create_default_context(cafile=authority) if authority else None
        healthz = f"{endpoint.rstrip('/')}/apis/v2beta1/healthz"
        urllib.request.urlopen(healthz, timeout=10, context=context).close()
    except urllib.error.HTTPError:
        pass  # it answers; the client reports whether it accepts the login
    except OSError as error:
        raise MissingError(f"KF_PIPELINES_ENDPOINT: {endpoint} does not answer: {error}") from None
    return Surroundings(
        endpoint=endpoint,
        kubeconfig=kubeconfig,
        namespace=namespace,
        registry=registry,
        bucket=bucket,
        endpoint_of_pods=pods,
        secret=environment.get("ALFAMIX_CLUSTER_SECRET", "alfamix-s3"),
        gpus=int(gpus),
    )


def check_the_bucket(bucket: str) -> None:
    """Write, read and delete an object.

    Raises:
        MissingError: this machine's keys do not allow it, or the store does not answer.
    """
    key = f"check-{uuid.uuid4().hex}"
    try:
        store = open_store(bucket)
        store.create(key, b"x")
        store.read(key)
        store.delete(key)
    except AlfamixError as error:
        raise MissingError(f"ALFAMIX_CLUSTER_BUCKET: {' '.join(str(error).split())}") from None


def _matching(environment: Mapping[str, str], name: str, pattern: str, what: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise MissingError(f"{name}: is not set; must be {what}")
    if not re.fullmatch(pattern, value):
        raise MissingError(f'{name}: must be {what}, not "{value}"')
    return value


def _only(environment: Mapping[str, str], name: str, key: str) -> dict[str, str]:
    return {key: environment[name]} if environment.get(name) else {}
