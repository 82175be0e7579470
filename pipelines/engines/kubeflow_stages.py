"""The progress of a run on Kubeflow: its stages, from the tasks that the API lists.

Up to release 2.17 that is every node of the Argo workflow, under ``run_details.task_details``: drivers, retries and
wrappers beside the tasks, and each shard under the same name. From 2.18 on it is a list of the API's own, ``tasks``,
which only the full view has. (backend/src/common/util/workflow.go, backend/src/v2/compiler/argocompiler/dag.go and
backend/api/v2beta1/run.proto, of 2.17.0 and of pull request 13986.)
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.stages import STAGES

_ENDED_WELL = ("SUCCEEDED", "SKIPPED", "CACHED")
_ITERATION = re.compile(r"iteration\(\d+:\d+\)")


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        states: States of its tasks that have begun, one per shard if it is fanned out.
        total: Number of tasks that there will be, as far as it is known.
    """

    states: tuple[str, ...]
    total: int

    @property
    def done(self) -> int:
        """Number of tasks that have ended well."""
        return sum(state in _ENDED_WELL for state in self.states)

    @property
    def state(self) -> str:
        """State of all tasks together: failed, succeeded, skipped, cached, running or pending."""
        if "FAILED" in self.states:
            return "failed"
        if self.done == self.total:
            kinds = set(self.states)
            return kinds.pop().lower() if len(kinds) == 1 else "succeeded"
        return "running" if self.done or "RUNNING" in self.states else "pending"

    def line(self, name: str) -> str:
        """Return the stage's progress as a line, with its shards if there are several."""
        shards = f" {self.done}/{self.total}" if self.total > 1 else ""
        return f"  {name:<10} {self.state}{shards}"


def of_run(run: Mapping[str, Any]) -> dict[str, Stage]:
    """Return the stages that have begun, in the order of the round.

    Args:
        run: JSON of the API, of either release.
    """
    tasks = run.get("tasks") or []
    if tasks:
        named = ((task.get("name") or task.get("display_name") or "", task.get("state") or "") for task in tasks)
        attributes = (task.get("type_attributes") or {} for task in tasks)
        return _stages(named, max((int(attribute.get("iteration_count") or 0) for attribute in attributes), default=0))
    nodes = (run.get("run_details") or {}).get("task_details") or []
    names = [str(node.get("display_name") or "") for node in nodes]
    iterations = sum(bool(_ITERATION.fullmatch(name)) for name in names)
    return _stages(zip(names, (node.get("state") or "" for node in nodes), strict=True), iterations)


def _stages(named: Iterable[tuple[str, str]], shards: int) -> dict[str, Stage]:
    begun: dict[str, list[str]] = {name: [] for name in STAGES}
    for name, state in named:
        if name in begun:
            begun[name].append(state)
    return {
        name: Stage(tuple(states), max(len(states), shards if STAGES[name].fanned_out else 1))
        for name, states in begun.items()
        if states
    }
