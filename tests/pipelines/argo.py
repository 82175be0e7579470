"""What Argo does with a task of the compiled pipeline: the rules of its controller, as far as they concern us.

Written after workflow/controller/operator.go (inferFailedReason, podReconciliation, processNodeRetries),
exec_control.go and workflowpod.go of Argo 4.0.5 and 4.0.8, util/errors/errors.go of 4.0.5,
backend/src/v2/compiler/argocompiler/container.go (getTaskRetryStrategyFromInput) and dag.go (DAG, iteratorTask) of
Kubeflow Pipelines 2.17.0, dag.go (assessDAGPhase) of Argo, and two
files of its manifests in manifests/kustomize/third-party/argo/base: workflow-controller-configmap-patch.yaml and
workflow-controller-deployment-patch.yaml.
"""

import math
import re
from collections.abc import Callable, Mapping
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


def enclosing(spec: dict[str, Any], stage: str) -> list[str]:
    """Return the DAG templates around a stage's pod, the innermost first.

    The default is merged into each of them (mergedTemplateDefaultsInto), and none has a strategy of its own. A DAG ends
    with the phase of the task that ended it (assessDAGPhase).

    Args:
        spec: compiled pipeline.
        stage: name of the stage's task.
    """

    def inside(component: dict[str, Any], name: str) -> list[str] | None:
        tasks = component.get("dag", {}).get("tasks", {})
        if stage in tasks:
            # a task for the exit runs in a template that is a hook, beside the DAG
            return [f"exit-hook-{name}" if is_exit_task(tasks[stage]) else name]
        for task_name, task in tasks.items():
            reference = task["componentRef"]["name"]
            found = inside(spec["components"][reference], task_name)
            if found is not None:
                loop = ["iteration", "iterator"] if "parameterIterator" in task else []
                return [*found, *loop, name]
        return None

    found = inside(spec["root"], "root")
    assert found is not None
    if found[0].startswith("exit-hook"):
        return ["executor", found[0]]  # the phase of a hook is not that of the DAG
    return ["executor", *found, "entrypoint"]


def pods(spec: dict[str, Any], stage: str, default: dict[str, str], endings: Callable[[int], Pod | None]) -> int:
    """Return how many pods of a stage Argo starts, by running its controller's loops; every wait passes at once.

    Args:
        spec: compiled pipeline.
        stage: name of the stage's task.
        default: retry strategy of the ConfigMap.
        endings: how each pod ends, by its number from 0; a pod never ends well.
    """
    own = strategy(all_tasks(spec)[stage], default)
    around = Strategy(limit=int(default["limit"]), policy=default["retryPolicy"]) if default else None
    started = 0

    def run(levels: int) -> Node:
        """Run a template with its retries: the pod at level 0, and the DAGs around it."""
        nonlocal started
        rule = around if levels else own
        attempts = 0
        while True:
            attempts += 1
            if levels:
                # a DAG has the phase of the task that ended it, and no message
                ended = Node(run(levels - 1).phase, "")
            else:
                ended = node(endings(started))
                started += 1
            if rule is None or attempts > rule.limit or not rule.repeats(ended):
                return ended

    run(len(enclosing(spec, stage)))
    return started


def all_tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every task of the compiled pipeline by its name."""
    parts = [spec["root"], *spec["components"].values()]
    return {name: task for part in parts for name, task in part.get("dag", {}).get("tasks", {}).items()}


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
