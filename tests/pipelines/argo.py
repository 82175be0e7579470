"""What Argo does with a task of the compiled pipeline: the rules of its controller, as far as they concern us.

Written after workflow/controller/operator.go (processNodeRetries), exec_control.go and workflowpod.go of Argo 4.0.8,
backend/src/v2/compiler/argocompiler/container.go (getTaskRetryStrategyFromInput) of Kubeflow Pipelines 2.17.0, and the
ConfigMap of its manifests, manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml.
"""

import math
from dataclasses import dataclass
from typing import Any

KUBEFLOW_DEFAULT = {"limit": "2", "retryPolicy": "OnError"}
"""spec.templateDefaults.retryStrategy in that ConfigMap."""

FAILED = "Failed"
"""Phase of a pod whose container ended with another status than 0, ran out of memory or out of time."""
LOST = "Error"
"""Phase of a pod that was deleted, as on a node that is drained, preempted or gone."""


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

    def next_wait(self, phase: str, attempts: int, seconds: float) -> float | None:
        """Return the wait before another attempt, None where there is none.

        Args:
            phase: in which the last attempt ended.
            attempts: so far.
            seconds: since the first attempt was created, its time in the queue included.

        Raises:
            ValueError: the factor is not a whole number; the controller ends the node with an error.
        """
        wait = self.duration * math.trunc(int(self.factor) ** (attempts - 1))
        if seconds + wait > self.window:
            return None
        on = {"OnError": (LOST,), "OnFailure": (FAILED,), "Always": (LOST, FAILED)}[self.policy]
        return wait if phase in on and attempts <= self.limit else None


def strategy(task: dict[str, Any], default: dict[str, str]) -> Strategy | None:
    """Return what holds for a task of the compiled pipeline: its own fields, and those of the default that it lacks."""
    own: dict[str, Any] = {}
    if "retryPolicy" in task:
        policy = task["retryPolicy"]
        factor = policy["backoffFactor"]
        own = {
            "limit": str(policy["maxRetryCount"]),
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
    """Whether a task becomes a hook for the workflow's exit, and its pods pods of an exit handler."""
    return task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"


def time_limit(task: dict[str, Any], own: float, workflow: float, elapsed: float) -> float:
    """Return the seconds that a pod may run.

    Args:
        task: of the compiled pipeline.
        own: the template's limit.
        workflow: the whole workflow's limit.
        elapsed: seconds since the workflow began.
    """
    return own if is_exit_task(task) else min(own, max(0.0, workflow - elapsed))
