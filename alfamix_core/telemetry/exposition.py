"""Values of the catalogue's metrics, and their exposition in Prometheus' text format."""

import json
import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from alfamix_core.telemetry.metrics import ALL, Metric

Values = dict[tuple[str, ...], float]


class Board:
    """The values of one project's or process's metrics at one time."""

    def __init__(self, project: str) -> None:
        """Start without values; ``project`` is the default of the label of that name."""
        self._project = project
        self._values: dict[Metric, Values] = {}

    def set(self, metric: Metric, value: float | None, /, **labels: str) -> None:
        """Set the value of a metric; None leaves it out.

        Raises:
            ValueError: The labels are not those of the metric, or the value is not finite.
        """
        if value is None:
            return
        all_labels = ({} if metric.source == "exporter" else {"project": self._project}) | labels
        if set(all_labels) != set(metric.all_labels):
            raise ValueError(f"{metric.name} must have the labels {metric.all_labels}, not {tuple(all_labels)}")
        if not math.isfinite(value):
            raise ValueError(f"{metric.name} must be finite, not {value}")
        self._values.setdefault(metric, {})[tuple(all_labels[name] for name in metric.all_labels)] = float(value)

    def get(self, metric: Metric, /, **labels: str) -> float | None:
        """Return a value, or None if there is none."""
        all_labels = {"project": self._project} | labels
        return self._values.get(metric, {}).get(tuple(all_labels[name] for name in metric.all_labels))

    def to_json(self) -> str:
        """Return all values as one JSON document, for another process."""
        values = [[metric.name, *labels, value] for metric, series in self.items() for labels, value in series.items()]
        return json.dumps({"project": self._project, "values": values})

    @classmethod
    def from_json(cls, text: str) -> "Board":
        """Return a board from the text of ``to_json``.

        Raises:
            ValueError: The text does not describe a board.
        """
        document = json.loads(text)
        board, by_name = cls(document["project"]), {metric.name: metric for metric in ALL}
        for name, *labels, value in document["values"]:
            metric = by_name[name]
            board.set(metric, value, **dict(zip(metric.all_labels, labels, strict=True)))
        return board

    def items(self) -> Iterator[tuple[Metric, Values]]:
        """Yield the metrics that have a value, in the catalogue's order."""
        return ((metric, self._values[metric]) for metric in ALL if metric in self._values)


class _Boards(Collector):
    def __init__(self, boards: Iterable[Board]) -> None:
        self._boards = tuple(boards)

    def collect(self) -> Iterator[Family]:
        """Yield one family per metric, with the values of all boards."""
        merged: dict[Metric, Values] = {}
        for board in self._boards:
            for metric, values in board.items():
                merged.setdefault(metric, {}).update(values)
        for metric in ALL:
            if metric in merged:
                family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.all_labels)
                for labels, value in sorted(merged[metric].items()):
                    family.add_metric(labels, value)
                yield family


_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


def registry(boards: Iterable[Board]) -> CollectorRegistry:
    """Return a registry that exposes the boards' values."""
    collectors = CollectorRegistry()
    collectors.register(_Boards(boards))
    return collectors


def counter(metric: Metric, to: CollectorRegistry) -> Counter:
    """Return a counter of this process for a metric of the catalogue."""
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.all_labels, registry=to)


def gauge(metric: Metric, to: CollectorRegistry) -> Gauge:
    """Return a gauge of this process for a metric of the catalogue."""
    return Gauge(metric.name, metric.help, metric.all_labels, registry=to)
