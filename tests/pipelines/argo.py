"""What Argo does with a task of the compiled pipeline: the rules of its controller, as far as they concern us.

Written after workflow/controller/operator.go (inferFailedReason, podReconciliation, processNodeRetries),
exec_control.go and workflowpod.go of Argo 4.0.5 and 4.0.8, util/errors/errors.go of 4.0.5,
backend/src/v2/compiler/argocompiler/container.go (getTaskRetryStrategyFromInput) of Kubeflow Pipelines 2.17.0, and two
files of its manifests in manifests/kustomize/third-party/argo/base: workflow-controller-configmap-patch.yaml and
workflow-controller-deployment-patch.yaml.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KUBEFLOW_DEFAULT = {"limit": "2", "retryPolicy": "OnError"}
"""spec.templateDefaults.retryStrategy in that ConfigMap."""
KUBEFLOW_PATTERN = "(?i)(imminent node shutdown|node is shutting down|preempt|evict|spot|pod deleted)"
"""TRANSIENT_ERROR_PATTERN in that Deployment; only the policy OnTransientError looks at it."""

FAILED, ERROR = "Failed", "Error"
_TRANSIENT = (
    *("etcdserver: leader changed", "etcdserver: request timed out", "etcdserver: too many requests"),
    *("Connection closed by foreign host", "net/http: TLS handshake timeout", "i/o timeout", "connection timed out"),
    *("connection reset by peer", "connect: connection refused", "http2: client connection lost"),
)


@dataclass(frozen=True)
class Pod:
    """A pod that ended badly, as its status says it.

    Attributes:
        message: message of the status; the kubelet writes one on an eviction, a node's shutdown or a deadline.
        statuses: exit status by container: init, main, wait.
    """

    message: str = ""
    statuses: Mapping[str, int] = field(default_factory=dict)


GONE = None
"""A pod whose object had vanished when the controller looked: deleted, or on a node that was removed."""
EVICTED = Pod("The node was low on resource: memory. Threshold quantity: 100Mi, available: 88Mi. ")
DISK_EXCEEDED = Pod('Usage of EmptyDir volume "tmp" exceeds the limit "2Gi". ')
SHUT_DOWN = Pod("Pod was terminated in response to imminent node shutdown.", {"main": 143})
PREEMPTED_BY_THE_KUBELET = Pod("Preempted in order to admit critical pod")
LATE = Pod("Pod was active on the node longer than the specified deadline")
DELETED_BUT_SEEN = Pod(statuses={"main": 143})
"""A pod that was deleted with grace, of which the controller saw the end of the container first."""
OUT_OF_MEMORY = Pod(statuses={"main": 137})
WRONG_INPUT = Pod(statuses={"main": 2, "wait": 0})
NOT_PREPARED = Pod(statuses={"init": 64})
NOT_FINISHED = Pod(statuses={"main": 0, "wait": 64})


class Node(NamedTuple):
    """What the controller makes of a pod: its phase and its message."""

    phase: str
    message: str


def node(pod: Pod | None) -> Node:
    """Return the node of a pod that ended badly."""
    if pod is None:
        return Node(ERROR, "pod deleted")
    if pod.message:
        return Node(FAILED, pod.message)
    for container, phase in (("init", ERROR), ("main", FAILED), ("wait", ERROR)):
        if status := pod.statuses.get(container):
            return Node(phase, f"{container}: Error (exit code {status})")
    return Node(FAILED, "pod failed: neither main nor wait container completed successfully")


@dataclass(frozen=True)
class Strategy:
    """A retry strategy, merged.

    Attributes:
        limit: further attempts.
        policy: OnError, OnFailure, Always or OnTransientError.
        duration: seconds before the second attempt.
        factor: by which each further wait is longer, as it stands in the workflow: text.
        window: seconds from the first attempt's creation in which another may begin.
    """

    limit: int
    policy: str
    duration: float = 0.0
    factor: str = "1"
    window: float = math.inf

    def next_wait(
        self, pod: Pod | None, attempts: int, seconds: float, pattern: str = KUBEFLOW_PATTERN
    ) -> float | None:
        """Return the wait before another attempt, None where there is none.

        Args:
            pod: the last attempt's.
            attempts: attempts until now.
            seconds: time since the first attempt was created, its time in the queue included.
            pattern: the controller's TRANSIENT_ERROR_PATTERN.

        Raises:
            ValueError: the factor is not a whole number; the controller ends the node with an error.
        """
        wait = self.duration * math.trunc(int(self.factor) ** (attempts - 1))
        if seconds + wait > self.window or attempts > self.limit:
            return None
        return wait if self.repeats(node(pod), pattern) else None

    def repeats(self, ended: Node, pattern: str = KUBEFLOW_PATTERN) -> bool:
        """Return whether the policy lets a node be repeated."""
        if self.policy == "OnTransientError":
            known = any(text in ended.message for text in _TRANSIENT)
            return known or bool(pattern and re.search(pattern, ended.message))
        return ended.phase in {"OnError": (ERROR,), "OnFailure": (FAILED,), "Always": (ERROR, FAILED)}[self.policy]


def strategy(task: dict[str, Any], default: dict[str, str]) -> Strategy | None:
    """Return what holds for a task of the compiled pipeline: its own fields, and those of the default that it lacks."""
    own: dict[str, Any] = {}
    if "retryPolicy" in task:
        policy = task["retryPolicy"]
        factor = policy["backoffFactor"]
        own = {
            "limit": str(policy.get("maxRetryCount", 0)),  # JSON leaves 0 out, and the backend writes it down
            "duration": float(policy["backoffDuration"].removesuffix("s")),
            "factor": str(int(factor)) if factor == int(factor) else str(factor),  # Go prints 2.0 as 2
            "window": float(policy["backoffMaxDuration"].removesuffix("s")),
        }
    merged = {**default, **own}
    if not merged:
        return None
    policy = merged.pop("retryPolicy", "OnFailure")  # the controller's own, where there is no expression
    return Strategy(limit=int(merged.pop("limit")), policy=policy, **merged)


def is_exit_task(task: dict[str, Any]) -> bool:
    """Return whether a task becomes a hook for the workflow's exit, and its pods pods of an exit handler."""
    return task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"


def time_limit(task: dict[str, Any], own: float, workflow: float, elapsed: float) -> float:
    """Return the seconds that a pod may run.

    Args:
        task: task of the compiled pipeline.
        own: limit of the template.
        workflow: limit of the whole workflow; terminating a run on Kubeflow's pages sets it to 0.
        elapsed: seconds since the workflow began.
    """
    return own if is_exit_task(task) else min(own, max(0.0, workflow - elapsed))
