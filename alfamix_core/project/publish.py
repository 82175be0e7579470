"""Publish the project's metrics when a run ends, as its settings say. Metrics never fail a round."""

from datetime import UTC, datetime
from pathlib import Path

from alfamix_core.errors import AlfamixError
from alfamix_core.project.rounds import read_settings
from alfamix_core.project.state import measure
from alfamix_core.storage import Store
from alfamix_core.telemetry import push
from alfamix_core.telemetry.events import emit
from alfamix_core.telemetry.measures import Stopwatch


def publish(store: Store) -> None:
    """Read the state and send it as ``metrics`` of project.json says; a failure is one warning.

    Args:
        store: The project.
    """
    watch = Stopwatch()
    problem = _publish(store)
    if problem is not None:
        emit("metrics", stage="finish", seconds=watch.seconds, warning=problem)


def _publish(store: Store) -> str | None:
    """Return the problem, '' without one, None if there was nothing to do."""
    problem = ""
    try:
        settings = read_settings(store)
        way = settings.metrics
        if way.way == "none":
            return None
        board = measure(store, datetime.now(UTC))
        if way.way == "pushgateway":
            problem = push.to_gateway(board, way.url, settings.name, way.timeout_seconds)
        else:
            problem = push.to_file(board, Path(way.path))
    except AlfamixError as error:
        problem = f"metrics were not published: {error}"
    except Exception as error:  # a metric of ours that is wrong is no reason to lose a round
        problem = f"metrics were not published: {type(error).__name__}: {error}"
    return problem
