"""Sums over a project's rounds, carried from round to round, so that no reader needs all of them."""

from collections import Counter

from alfamix_core.project import rounds
from alfamix_core.records.round import Drift, Outcome, Round, Totals
from alfamix_core.storage import Store


def with_history(store: Store, record: Round, outcome: Outcome) -> Outcome:
    """Return a round's outcome with the sums up to it, and its drift compared with the previous round's.

    Args:
        store: The project.
        record: Round; the sums are carried from the last round before it that was exported.
        outcome: Outcome of the round, with the embedding distance and the predicted shares in ``drift``.
    """
    numbers = (number for number in reversed(rounds.numbers(store)) if number < record.number)
    outcomes = (rounds.read(store, number).value.outcome for number in numbers)
    last = next((earlier for earlier in outcomes if earlier is not None), None)
    totals = last.totals if last is not None and last.totals is not None else Totals()
    return outcome.model_copy(
        update={
            "totals": _add(totals, outcome, record.counts.train),
            "drift": _compare(outcome.drift, last.drift if last is not None else None) if outcome.drift else None,
        }
    )


def _add(totals: Totals, outcome: Outcome, train_labels: int) -> Totals:
    stages = outcome.stages.values()
    first = not totals.first_metrics and bool(outcome.metrics)
    return Totals(
        rounds=dict(sorted((Counter(totals.rounds) + Counter([outcome.strategy])).items())),
        queries=totals.queries + outcome.queries,
        gpu_seconds=round(totals.gpu_seconds + sum(stage.gpu_seconds for stage in stages), 3),
        stage_seconds=round(totals.stage_seconds + sum(stage.seconds for stage in stages), 3),
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
