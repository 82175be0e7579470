"""The way of a board's values out of a run: to a Pushgateway, or into a file that node_exporter reads."""

import os
import tempfile
from pathlib import Path
from urllib.error import URLError

from prometheus_client import generate_latest
from prometheus_client.exposition import push_to_gateway

from alfamix_core.telemetry.exposition import Board, registry

JOB = "alfamix"


def to_gateway(board: Board, url: str, project: str, timeout_seconds: float) -> str:
    """Replace what the gateway has of a project by the board (PUT), so that no stale series stays.

    Args:
        board: the values.
        url: of the Pushgateway, such as ``http://pushgateway:9091``.
        project: the grouping key, beside the job.
        timeout_seconds: of connecting and of each answer.

    Returns:
        What went wrong, in one line; empty when nothing did.
    """
    try:
        push_to_gateway(url, JOB, registry([board]), grouping_key={"project": project}, timeout=timeout_seconds)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return f"metrics were not pushed to {url}: {reason}"
    return ""


def to_file(board: Board, path: Path) -> str:
    """Write the board in the text format, at once or not at all.

    Args:
        board: the values.
        path: file whose name ends in ``.prom``, in a folder that exists.

    Returns:
        What went wrong, in one line; empty when nothing did.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(generate_latest(registry([board])))
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"metrics were not written to {path}: {error.strerror}"
    return ""
