"""The part of the PodMonitor of the Prometheus Operator (monitoring.coreos.com/v1) that we use, as typed records.

No package ships the schema of this custom resource; names and types are those of its Go definition. A field that is
not here is refused, so that a typing error is found.
"""

from typing import Annotated, Literal

from pydantic import Field

from alfamix_core.records.record import Record

Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|[smhdwy]))+$")]


class Requirement(Record):
    """One expression of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class Selector(Record):
    """Which pods."""

    matchLabels: dict[str, str] = Field(default_factory=dict)
    matchExpressions: tuple[Requirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether pods with these labels are meant."""
        if any(labels.get(key) != value for key, value in self.matchLabels.items()):
            return False
        holds = {
            "In": lambda expression: labels.get(expression.key) in expression.values,
            "NotIn": lambda expression: labels.get(expression.key) not in expression.values,
            "Exists": lambda expression: expression.key in labels,
            "DoesNotExist": lambda expression: expression.key not in labels,
        }
        return all(holds[expression.operator](expression) for expression in self.matchExpressions)


class Relabelling(Record):
    """A label that is made of others."""

    sourceLabels: tuple[str, ...] = Field(min_length=1)
    targetLabel: str
    replacement: str


class Endpoint(Record):
    """What is scraped of a pod."""

    port: str
    path: str = "/metrics"
    interval: Duration
    scrapeTimeout: Duration
    relabelings: tuple[Relabelling, ...] = ()


class Spec(Record):
    """Pods and endpoints."""

    selector: Selector
    podTargetLabels: tuple[str, ...] = ()
    podMetricsEndpoints: tuple[Endpoint, ...] = Field(min_length=1)


class Metadata(Record):
    """Metadata of an object."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class PodMonitor(Record):
    """The whole object."""

    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: Spec
