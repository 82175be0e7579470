"""The trigger's own metrics, as Prometheus scrapes them from its process."""

import time

from prometheus_client import CollectorRegistry, generate_latest

from alfamix_core.telemetry import metrics
from alfamix_core.telemetry.exposition import counter, gauge


class TriggerMetrics:
    """The trigger's metrics; every one has the label ``project``."""

    def __init__(self, project: str) -> None:
        """Begin with 0 for every series that is known beforehand."""
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
        """Count new files, found by ``poll`` or ``sqs``."""
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
        """Count a run, and record its round."""
        self._starts.labels(self._project).inc()
        self._round.labels(self._project).set(number)

    def pending(self, since: float | None) -> None:
        """Record since when, by the monotonic clock, something new waits; None if nothing does."""
        self._since = since
        self._pending.labels(self._project).set(since is not None)

    def stale(self, count: int) -> None:
        """Record how many runs are treated as over although the engine calls them unfinished."""
        self._stale.labels(self._project).set(count)

    def looked(self) -> None:
        """Record that the project was listed now."""
        self._looked.labels(self._project).set_to_current_time()

    def _lag(self) -> float:
        since = self._since
        return 0.0 if since is None else max(0.0, time.monotonic() - since)
