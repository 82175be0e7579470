"""What a watching process tells of itself over HTTP: /healthz for Kubernetes, /metrics for Prometheus."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from alfamix_core.errors import InputError


class TriggerMetrics:
    """The trigger's metrics; every one has the label ``project``."""

    def __init__(self, project: str) -> None:
        self.registry = CollectorRegistry()
        self._project = project
        self._seen = self._counter("events", "manifests and label batches that were noticed", "source")
        self._messages = self._counter("messages", "SQS messages that were read", "kind")
        self._considered = self._counter("considered", "times the project was asked whether a round is due", "decision")
        self._errors = self._counter("errors", "errors after which it went on", "source")
        self._starts = self._counter("starts", "runs that were started")
        self._pending = self._gauge("pending", "1 while something new waits for a run")
        self._looked = self._gauge("last_look_timestamp_seconds", "when the project was last listed")
        self._round = self._gauge("last_started_round", "the round of the run that was started last")
        for kind in ("relevant", "elsewhere", "malformed"):
            self._messages.labels(project, kind)
        for source in ("project", "messages"):
            self._errors.labels(project, source)
        self._starts.labels(project)
        self.turned = time.monotonic()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"alfamix_trigger_{name}", meaning, ["project", *labels], registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"alfamix_trigger_{name}", meaning, ["project"], registry=self.registry)

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

    def pending(self, waits: bool) -> None:
        """Say whether something new waits."""
        self._pending.labels(self._project).set(waits)

    def looked(self) -> None:
        """Say that the project was listed just now."""
        self._looked.labels(self._project).set_to_current_time()


@contextmanager
def serve(metrics: TriggerMetrics, port: int, stale: float, host: str = "0.0.0.0") -> Iterator[int]:
    """Serve /healthz and /metrics from a thread while the block runs.

    /healthz is 200 while the process goes round its loop, 503 when it has not for ``stale`` seconds: a store that is
    down is no reason to restart the process, and shows in ``alfamix_trigger_errors_total``.

    Args:
        metrics: what is served.
        port: 0 for a free one.
        stale: seconds.
        host: address to listen on.

    Yields:
        The port.

    Raises:
        InputError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            kind = "text/plain; charset=utf-8"
            if path == "/metrics":
                status, body, kind = 200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST
            elif path == "/healthz":
                age = time.monotonic() - metrics.turned
                status = 200 if age <= stale else 503
                body = b"ok\n" if age <= stale else f"no turn for {age:.0f} s\n".encode()
            else:
                status, body = 404, b"there are /healthz and /metrics\n"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: probes come every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be listened on: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
