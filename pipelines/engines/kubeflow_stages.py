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
_ITERATION = re.compile(r"iteration(-iterations)?\(\d+:\d+\)")
_MOST_SHARDS = 100_000


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

    Argo may repeat a whole DAG around a stage that ended badly; the nodes of the first attempt stay. A stage that is
    there more often than it has shards is shown by its latest nodes.

    Args:
        run: JSON of the API, of either release.

    Raises:
        ValueError: a number of iterations that no loop has.
    """
    tasks = run.get("tasks") or []
    if tasks:
        attributes = (task.get("type_attributes") or {} for task in tasks)
        counts = (_count(attribute.get("iteration_count") or 0) for attribute in attributes)
        return _stages(tasks, max(counts, default=0))
    nodes = (run.get("run_details") or {}).get("task_details") or []
    # a loop that Argo repeated has the names of its iterations twice
    return _stages(nodes, len({_name(node) for node in nodes if _ITERATION.fullmatch(_name(node))}))


def _count(value: object) -> int:
    """Return a number of iterations, which is text in JSON."""
    if not re.fullmatch(r"\d{1,6}", str(value)) or int(str(value)) > _MOST_SHARDS:
        raise ValueError(f'a loop has "{str(value)[:20]}" iterations')
    return int(str(value))


def _name(task: Mapping[str, Any]) -> str:
    return str(task.get("name") or task.get("display_name") or "")


def _stages(tasks: Iterable[Mapping[str, Any]], shards: int) -> dict[str, Stage]:
    begun: dict[str, list[tuple[str, str]]] = {name: [] for name in STAGES}
    for task in tasks:
        if _name(task) in begun:
            begun[_name(task)].append((str(task.get("start_time") or ""), str(task.get("state") or "")))
    stages = {}
    for name, nodes in begun.items():
        if nodes:
            known = shards if STAGES[name].fanned_out else 1
            states = _latest(nodes, known)
            stages[name] = Stage(states, max(len(states), known))
    return stages


def _latest(nodes: list[tuple[str, str]], number: int) -> tuple[str, ...]:
    """Return the states of as many nodes as there are shards: what an older attempt left is dropped.

    The API of release 2.17 does not say to which shard a node belongs. The newest node always counts; of the others
    those go first that failed, and then the oldest.

    Args:
        nodes: Time of the start and state, in the order of the API.
        number: Number of shards; 0 if it is not known.
    """
    ordered = sorted(range(len(nodes)), key=lambda index: nodes[index][0])
    surplus = max(0, len(nodes) - number) if number else 0
    superseded = sorted(ordered[:-1], key=lambda index: nodes[index][1] != "FAILED")[:surplus]
    return tuple(state for index, (_, state) in enumerate(nodes) if index not in superseded)
