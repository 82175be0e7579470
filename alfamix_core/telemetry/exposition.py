"""Values of the catalogue's metrics, and their way into Prometheus' text format."""

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
    """Values of metrics at one moment, of one project or process."""

    def __init__(self, project: str) -> None:
        """Begin with nothing; ``project`` is the label of that name wherever it is not given."""
        self._project = project
        self._values: dict[Metric, Values] = {}

    def set(self, metric: Metric, value: float | None, /, **labels: str) -> None:
        """Give a metric a value; None leaves it out.

        Raises:
            ValueError: the labels are not the metric's, or the value is not finite.
        """
        if value is None:
            return
        given = ({} if metric.source == "exporter" else {"project": self._project}) | labels
        if set(given) != set(metric.all_labels):
            raise ValueError(f"{metric.name} has the labels {metric.all_labels}, not {tuple(given)}")
        if not math.isfinite(value):
            raise ValueError(f"{metric.name} must be finite, not {value}")
        self._values.setdefault(metric, {})[tuple(given[name] for name in metric.all_labels)] = float(value)

    def get(self, metric: Metric, /, **labels: str) -> float | None:
        """Return a value, None where there is none."""
        given = {"project": self._project} | labels
        return self._values.get(metric, {}).get(tuple(given[name] for name in metric.all_labels))

    def to_json(self) -> str:
        """Return everything as one JSON document, for another process."""
        values = [[metric.name, *labels, value] for metric, found in self.items() for labels, value in found.items()]
        return json.dumps({"project": self._project, "values": values})

    @classmethod
    def from_json(cls, text: str) -> "Board":
        """Return what ``to_json`` wrote.

        Raises:
            ValueError: it is nothing of the sort.
        """
        document = json.loads(text)
        board, names = cls(document["project"]), {metric.name: metric for metric in ALL}
        for name, *labels, value in document["values"]:
            metric = names[name]
            board.set(metric, value, **dict(zip(metric.all_labels, labels, strict=True)))
        return board

    def items(self) -> Iterator[tuple[Metric, Values]]:
        """Yield every metric that has a value, in the catalogue's order."""
        return ((metric, self._values[metric]) for metric in ALL if metric in self._values)


class _Boards(Collector):
    def __init__(self, boards: Iterable[Board]) -> None:
        self._boards = tuple(boards)

    def collect(self) -> Iterator[Family]:
        """Yield the families of all boards, each metric once."""
        found: dict[Metric, Values] = {}
        for board in self._boards:
            for metric, values in board.items():
                found.setdefault(metric, {}).update(values)
        for metric in ALL:
            if metric in found:
                family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.all_labels)
                for labels, value in sorted(found[metric].items()):
                    family.add_metric(labels, value)
                yield family


_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


def registry(boards: Iterable[Board]) -> CollectorRegistry:
    """Return a registry that shows the boards' values."""
    found = CollectorRegistry()
    found.register(_Boards(boards))
    return found


def counter(metric: Metric, to: CollectorRegistry) -> Counter:
    """Return a counter of this process, made from the catalogue."""
    return Counter(metric.name.removesuffix("_total"), metric.help, metric.all_labels, registry=to)


def gauge(metric: Metric, to: CollectorRegistry) -> Gauge:
    """Return a gauge of this process, made from the catalogue."""
    return Gauge(metric.name, metric.help, metric.all_labels, registry=to)
