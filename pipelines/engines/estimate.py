"""Estimate the duration of a round from that of the last one."""

from alfamix_core.project import rounds
from alfamix_core.project.planning import Plan
from alfamix_core.storage import Store


def minutes(store: Store, plan: Plan) -> float | None:
    """Return the estimated minutes of a planned round, or None before any round was exported.

    Embedding and scoring grow with the pool, training and evaluation with the labels, the rest stays as it was.
    """
    finished = [record for record in rounds.read_all(store) if record.outcome is not None]
    if not finished:
        return None
    last = finished[-1]
    assert last.outcome is not None
    pool = plan.counts.pool / max(last.counts.pool, 1)
    labels = plan.counts.labelled / max(last.counts.labelled, 1)
    factors = {"embed": pool, "score": pool, "train": labels}
    stages = last.outcome.stages.items()
    return round(sum(total.seconds * factors.get(stage, 1.0) for stage, total in stages) / 60, 1)
