"""Estimate the duration of a round from that of the last one."""

from alfamix_core.project import rounds
from alfamix_core.project.planning import Plan
from alfamix_core.storage import Store
from components.stages import STAGES


def minutes(store: Store, plan: Plan) -> float | None:
    """Return the estimated minutes of a planned round, or None before any round was exported.

    Each stage grows with what ``components.stages`` names, the pool or the labels; the rest stays as it was.
    """
    finished = [record for record in rounds.read_all(store) if record.outcome is not None]
    if not finished:
        return None
    last = finished[-1]
    assert last.outcome is not None
    growth = {
        "": 1.0,
        "pool": plan.counts.pool / max(last.counts.pool, 1),
        "labels": plan.counts.labelled / max(last.counts.labelled, 1),
    }
    stages = last.outcome.stages.items()
    return round(
        sum(total.seconds * growth[STAGES[name].grows_with] for name, total in stages if name in STAGES) / 60, 1
    )
