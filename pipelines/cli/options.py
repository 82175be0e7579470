"""Arguments and options that several commands share, and what their values open."""

import stat
from pathlib import Path
from typing import Annotated

import typer

from alfamix_core.errors import InputError
from alfamix_core.storage import Store, file_uri, open_store

_LARGEST_FILE = 2**30  # bytes; some ten million answers
EVERY_ADDRESS = "0.0.0.0"  # every IPv4 address: a pod's own is not known before it runs

ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Project: a folder, file:///… or s3://bucket/prefix.")
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="Engine that runs rounds: local, processes here; docker, containers here; kubeflow, pods on a cluster."
    ),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of outputs and cache; by default one below the user's cache folder.",
        show_default=False,
    ),
]
EndpointOption = Annotated[
    str,
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        metavar="URL",
        help="Address of the Kubeflow Pipelines API, such as http://ml-pipeline.kubeflow:8888.",
    ),
]
NamespaceOption = Annotated[
    str,
    typer.Option(
        envvar="KF_PIPELINES_NAMESPACE",
        help="Namespace on a multi-user Kubeflow; by default that of the pod in which the command runs.",
    ),
]
NetworkOption = Annotated[
    str,
    typer.Option(
        envvar="ALFAMIX_DOCKER_NETWORK",
        help="Docker network of the containers; host reaches an S3 server on this machine.",
    ),
]
HostOption = Annotated[
    str,
    typer.Option(
        envvar="ALFAMIX_HOST",
        help="Address to listen on. Kubernetes and Prometheus come from outside a pod; elsewhere 127.0.0.1 is safer.",
    ),
]
# printing.ending reads it, so that no command does
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]


def open_project(project: str) -> Store:
    """Open the store of a project."""
    return open_store(to_uri(project))


def to_uri(text: str) -> str:
    """Return the URI of a location that may also be given as a path."""
    return text if "://" in text else file_uri(Path(text).expanduser().resolve())


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, or of a pipe, that the user names.

    Raises:
        InputError: It cannot be read, is neither, or is too large.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise InputError(f"{path} must be a file or a pipe, not a device or a socket")
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise InputError(f"{path} must have at most {_LARGEST_FILE:,} bytes, but is larger")
    return data
