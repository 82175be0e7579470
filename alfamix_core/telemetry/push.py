"""Publishing a board's values from a run: to a Pushgateway, or into a file for node_exporter."""

from pathlib import Path
from urllib.error import URLError

from prometheus_client.exposition import push_to_gateway, write_to_textfile

from alfamix_core.telemetry.exposition import Board, registry

JOB = "alfamix"


def to_gateway(board: Board, url: str, project: str, timeout_seconds: float) -> str:
    """Replace a project's series on a Pushgateway by the board, with PUT, so that no stale series stays.

    Args:
        board: Values to publish.
        url: URL of the Pushgateway, such as ``http://pushgateway:9091``.
        project: Name of the project, the grouping key besides the job.
        timeout_seconds: Time limit for the connection and for each answer, in seconds.

    Returns:
        The error in one line; empty if there is none.
    """
    try:
        push_to_gateway(url, JOB, registry([board]), grouping_key={"project": project}, timeout=timeout_seconds)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return f"metrics were not pushed to {url}: {reason}"
    return ""


def to_file(board: Board, path: Path) -> str:
    """Write the board to a file in the text format, atomically.

    Args:
        board: Values to publish.
        path: Path that ends in ``.prom``, in an existing folder.

    Returns:
        The error in one line; empty if there is none.
    """
    try:
        write_to_textfile(str(path), registry([board]))
    except OSError as error:
        return f"metrics were not written to {path}: {error.strerror}"
    return ""
