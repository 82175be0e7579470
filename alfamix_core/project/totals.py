"""Sums over a project's rounds, carried from round to round, so that no reader needs all of them."""

from collections import Counter

from alfamix_core.project import rounds
from alfamix_core.records.round import Drift, Outcome, Round, StageTotal, Totals
from alfamix_core.storage import Store


def with_history(store: Store, record: Round, outcome: Outcome) -> Outcome:
    """Return a round's outcome with the sums up to it, and its drift compared with the previous round's.

    Args:
        store: The project.
        record: Round; earlier rounds are read back to the last one with sums.
        outcome: Outcome of the round, with the embedding distance and the predicted shares in ``drift``.
    """
    before: list[tuple[Outcome, int]] = []
    for number in reversed([number for number in rounds.numbers(store) if number < record.number]):
        earlier, _ = rounds.read(store, number)
        if earlier.outcome is not None:
            before.append((earlier.outcome, earlier.counts.train))
            if earlier.outcome.totals is not None:
                break
    totals = Totals()
    for earlier_outcome, labels in reversed(before):
        totals = earlier_outcome.totals or _add(totals, earlier_outcome, labels)
    last = before[0][0].drift if before else None
    return outcome.model_copy(
        update={
            "totals": _add(totals, outcome, record.counts.train),
            "drift": _compare(outcome.drift, last) if outcome.drift else None,
        }
    )


def _add(totals: Totals, outcome: Outcome, train_labels: int) -> Totals:
    stages = outcome.stages or {name: StageTotal(seconds=seconds) for name, seconds in outcome.seconds.items()}
    first = not totals.first_metrics and bool(outcome.metrics)
    return Totals(
        rounds=dict(sorted((Counter(totals.rounds) + Counter([outcome.strategy])).items())),
        queries=totals.queries + outcome.queries,
        gpu_seconds=round(totals.gpu_seconds + sum(stage.gpu_seconds for stage in stages.values()), 3),
        stage_seconds=round(totals.stage_seconds + sum(stage.seconds for stage in stages.values()), 3),
        promotions=totals.promotions + outcome.promoted,
        first_metrics=outcome.metrics if first else totals.first_metrics,
        first_train_labels=train_labels if first else totals.first_train_labels,
    )


def _compare(drift: Drift, last: Drift | None) -> Drift:
    """Keep the distance of the last new drop until another comes, and measure the shift of the predicted classes."""
    if last is None:
        return drift
    distance = last.embedding_distance if drift.embedding_distance is None else drift.embedding_distance
    now, then = drift.predicted_shares, last.predicted_shares
    shift = None
    if now and then:
        apart = sum(abs(now.get(name, 0.0) - then.get(name, 0.0)) for name in now.keys() | then.keys())
        shift = min(1.0, round(apart / 2, 6))
    return drift.model_copy(update={"embedding_distance": distance, "class_shift": shift})
