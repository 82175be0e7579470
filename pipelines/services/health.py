"""HTTP endpoints and signal handling shared by the services: /healthz for Kubernetes, /metrics for Prometheus."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST

from alfamix_core.errors import InputError
from pipelines.services.http_server import Response, serving


class Watched(Protocol):
    """A process that repeats a loop."""

    turned: float
    """Moment of the loop's last turn, by the monotonic clock."""

    def exposition(self) -> bytes:
        """Return its metrics in Prometheus' text format."""


@contextmanager
def serve(watched: Watched, port: int, stale: float, host: str) -> Iterator[int]:
    """Serve /healthz and /metrics from a thread while the block runs.

    /healthz is 200 while the process repeats its loop, and 503 if the last turn is longer ago than ``stale``: a store
    that is down is no reason to restart the process, and shows in ``alfamix_trigger_errors_total``.

    Args:
        watched: Process that is served.
        port: Port to listen on; 0 takes a free one.
        stale: Longest time between two turns, in seconds.
        host: Address to listen on.

    Yields:
        The port.

    Raises:
        InputError: The port is taken, or the address does not belong to this machine.
    """

    def answer(path: str) -> Response:
        if path == "/metrics":
            return Response(200, watched.exposition(), CONTENT_TYPE_LATEST)
        if path == "/healthz":
            age = time.monotonic() - watched.turned
            return Response(200, b"ok\n") if age <= stale else Response(503, f"no turn for {age:.0f} s\n".encode())
        return Response(404, b"there are /healthz and /metrics\n")

    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(serving(answer, host, port))
        except OSError as error:
            raise InputError(f"--host {host}, --port {port}: cannot be listened on: {error.strerror}") from None
        yield chosen


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on SIGTERM and on an interrupt while the block runs; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
