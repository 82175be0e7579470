"""What watching processes have in common: /healthz for Kubernetes, /metrics for Prometheus, an end on signals."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from alfamix_core.errors import InputError
from alfamix_core.telemetry import metrics
from alfamix_core.telemetry.exposition import counter, gauge
from pipelines.services.http_server import serving


class Watched(Protocol):
    """A process that goes round a loop."""

    turned: float
    """When the loop last turned, by the monotonic clock."""

    def exposition(self) -> bytes:
        """Return its metrics in Prometheus' text format."""


class TriggerMetrics:
    """The trigger's metrics; every one has the label ``project``."""

    def __init__(self, project: str) -> None:
        """Begin with every series that is known beforehand at 0."""
        self.registry = CollectorRegistry()
        self._project = project
        self._seen = counter(metrics.TRIGGER_EVENTS, self.registry)
        self._messages = counter(metrics.TRIGGER_MESSAGES, self.registry)
        self._considered = counter(metrics.TRIGGER_CONSIDERED, self.registry)
        self._errors = counter(metrics.TRIGGER_ERRORS, self.registry)
        self._starts = counter(metrics.TRIGGER_STARTS, self.registry)
        self._pending = gauge(metrics.TRIGGER_PENDING, self.registry)
        self._looked = gauge(metrics.TRIGGER_LOOKED, self.registry)
        self._round = gauge(metrics.TRIGGER_ROUND, self.registry)
        self._stale = gauge(metrics.TRIGGER_STALE, self.registry)
        for source in ("poll", "sqs"):
            self._seen.labels(project, source)
        for kind in ("relevant", "elsewhere", "malformed"):
            self._messages.labels(project, kind)
        for source in ("project", "messages"):
            self._errors.labels(project, source)
        self._starts.labels(project)
        self._since: float | None = None
        gauge(metrics.TRIGGER_LAG, self.registry).labels(project).set_function(self._lag)
        self.turned = time.monotonic()

    def exposition(self) -> bytes:
        """Return them in Prometheus' text format."""
        return generate_latest(self.registry)

    def noticed(self, source: str, count: int) -> None:
        """Count what is new, by ``poll`` or ``sqs``."""
        self._seen.labels(self._project, source).inc(count)

    def message(self, kind: str) -> None:
        """Count a message: relevant, elsewhere or malformed."""
        self._messages.labels(self._project, kind).inc()

    def considered(self, decision: str) -> None:
        """Count a decision: plan, resume, idle or busy."""
        self._considered.labels(self._project, decision).inc()

    def error(self, source: str) -> None:
        """Count an error of the project's store, the engine (``project``) or the queue (``messages``)."""
        self._errors.labels(self._project, source).inc()

    def started(self, number: int) -> None:
        """Count a run, and say for which round."""
        self._starts.labels(self._project).inc()
        self._round.labels(self._project).set(number)

    def pending(self, since: float | None) -> None:
        """Say since when, by the monotonic clock, something new waits; None when nothing does."""
        self._since = since
        self._pending.labels(self._project).set(since is not None)

    def stale(self, count: int) -> None:
        """Say how many runs are taken as over although the engine calls them unfinished."""
        self._stale.labels(self._project).set(count)

    def looked(self) -> None:
        """Say that the project was listed just now."""
        self._looked.labels(self._project).set_to_current_time()

    def _lag(self) -> float:
        since = self._since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)


@contextmanager
def serve(watched: Watched, port: int, stale: float, host: str) -> Iterator[int]:
    """Serve /healthz and /metrics from a thread while the block runs.

    /healthz is 200 while the process goes round its loop, 503 when it has not for ``stale`` seconds: a store that is
    down is no reason to restart the process, and shows in ``alfamix_trigger_errors_total``.

    Args:
        watched: what is served.
        port: 0 for a free one.
        stale: seconds.
        host: address to listen on.

    Yields:
        The port.

    Raises:
        InputError: the port is taken, or the address is not of this machine.
    """

    def answer(path: str) -> tuple[int, str, bytes]:
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, watched.exposition()
        if path == "/healthz":
            age = time.monotonic() - watched.turned
            return (200, plain, b"ok\n") if age <= stale else (503, plain, f"no turn for {age:.0f} s\n".encode())
        return 404, plain, b"there are /healthz and /metrics\n"

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
