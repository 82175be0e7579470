"""A person chooses the champion: recorded first, once, then applied, both under the project's lock."""

from datetime import datetime
from typing import Literal

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import champion, layout, models, rounds
from alfamix_core.project.versioned import Versioned
from alfamix_core.records.champion import Champion
from alfamix_core.records.round import ManualDecision, Round
from alfamix_core.storage import Store


def choose(
    store: Store, number: int | None, reason: str, now: datetime, kind: Literal["promote", "rollback"] = "promote"
) -> ManualDecision:
    """Make a person's choice the champion.

    Args:
        store: The project.
        number: Round whose model is to serve; None for the one that served before (``rollback``).
        reason: Reason in the person's words.
        now: Current moment, UTC.
        kind: The person's command.

    Raises:
        LockedError: A run, or other work, holds the project.
        InputError: There is no such model, it was changed, there is no earlier champion, or it serves already.
    """
    with rounds.holding(store, kind, now) as lock:
        current = _finish_earlier(store, lock.fence)
        champion_now = current.value
        if number is None:
            if not champion_now.before:
                raise InputError("there is no earlier champion to go back to")
            number = champion_now.before[-1]
        if number == champion_now.round:
            raise InputError(f"the model of round {number} is the champion already")
        record = _with_model(store, number)
        models.verify(store, record.model)
        decision = ManualDecision(
            revision=champion_now.revision + 1,
            kind=kind,
            round=number,
            model=record.model,
            reason=reason,
            metrics=record.outcome.metrics if record.outcome else {},
            champion_round=champion_now.round,
            champion_metrics=champion_now.metrics,
            time=now,
        )
        store.create(layout.decision(decision.revision), decision.document())
        champion.swap(store, current, record, decision.metrics, lock.fence)
    return decision


def _finish_earlier(store: Store, fence: int) -> Versioned[Champion]:
    """Apply a decision whose process was killed after it was recorded; return the champion."""
    current = champion.read(store)
    key = layout.decision(current.value.revision + 1)
    try:
        decision = ManualDecision.parse(store.read(key).data, key)
    except MissingObjectError:
        return current
    champion.swap(store, current, rounds.read(store, decision.round).value, decision.metrics, fence)
    return champion.read(store)


def _with_model(store: Store, number: int) -> Round:
    """Return a round whose model the project keeps."""
    records = [record for record in rounds.read_all(store) if models.is_there(store, record.model)]
    for record in records:
        if record.number == number:
            return record
    listed = ", ".join(str(record.number) for record in records) or "none"
    raise InputError(f"the project keeps no model of round {number}; it has those of rounds {listed}")
