"""A person chooses the champion: recorded first, once, then applied, both under the project's lock."""

from datetime import datetime
from typing import Literal

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import champion, layout, models, rounds
from alfamix_core.records.champion import Champion
from alfamix_core.records.round import ManualDecision, Round
from alfamix_core.storage import Store


def choose(
    store: Store, number: int | None, reason: str, now: datetime, kind: Literal["promote", "rollback"] = "promote"
) -> ManualDecision:
    """Make a person's choice the champion.

    Args:
        store: the project.
        number: the round whose model is to serve; None for the one that served before (``rollback``).
        reason: the person's words.
        now: the current moment, UTC.
        kind: what the person called it.

    Raises:
        LockedError: a run, or other work, holds the project.
        InputError: there is no such model, it was changed, there is no earlier champion, or it serves already.
    """
    with rounds.holding(store, kind, now) as held:
        current, tag = _finish_earlier(store, held.fence)
        if number is None:
            if not current.before:
                raise InputError("there is no earlier champion to go back to")
            number = current.before[-1]
        if number == current.round:
            raise InputError(f"the model of round {number} is the champion already")
        record = _with_model(store, number)
        models.verify(store, record.model)
        decision = ManualDecision(
            revision=current.revision + 1,
            kind=kind,
            round=number,
            model=record.model,
            reason=reason,
            metrics=record.outcome.metrics if record.outcome else {},
            champion_round=current.round,
            champion_metrics=current.metrics,
            time=now,
        )
        store.create(layout.decision(decision.revision), decision.document())
        champion.swap(store, current, tag, record, decision.metrics, held.fence)
    return decision


def _finish_earlier(store: Store, fence: int) -> tuple[Champion, str | None]:
    """Apply a decision whose process was killed after it was recorded; return the champion and its tag."""
    current, tag = champion.read(store)
    key = layout.decision(current.revision + 1)
    try:
        decision = ManualDecision.parse(store.read(key).data, key)
    except MissingObjectError:
        return current, tag
    champion.swap(store, current, tag, rounds.read(store, decision.round)[0], decision.metrics, fence)
    return champion.read(store)


def _with_model(store: Store, number: int) -> Round:
    """Return a round whose model the project keeps."""
    records = [record for record in rounds.read_all(store) if models.is_there(store, record.model)]
    for record in records:
        if record.number == number:
            return record
    listed = ", ".join(str(record.number) for record in records) or "none"
    raise InputError(f"the project keeps no model of round {number}; it has those of rounds {listed}")
