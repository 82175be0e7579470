"""The champion: which model production serves, and the one decision a round takes about it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.once import write_once
from alfamix_core.records.champion import Champion
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.model import CARD_FILE
from alfamix_core.records.project import REPORTED
from alfamix_core.records.round import ManualDecision, Promotion, Round
from alfamix_core.storage import Store


def read(store: Store) -> tuple[Champion, str | None]:
    """Return the champion and its tag; before the first promotion, one without a round and no tag."""
    try:
        stored = store.read(layout.CHAMPION)
    except MissingObjectError:
        return Champion(), None
    return Champion.parse(stored.data, layout.CHAMPION), stored.tag


def decide(
    record: Round,
    metrics: Mapping[str, float],
    champion_metrics: Mapping[str, float],
    trained: bool,
    *,
    recalls: Mapping[str, float] | None = None,
    champion_recalls: Mapping[str, float] | None = None,
    split: Literal["test", "audit"] = "test",
) -> Promotion:
    """Say whether a round's model is to become the champion.

    Args:
        record: the round; its champion is the one that was frozen in it.
        metrics: of the round's model on the test split, empty without test labels.
        champion_metrics: of the frozen champion's model on the same samples; empty when there is none.
        trained: False when the model still has its initial weights.
        recalls: of the round's model, by class, for the classes that have a sample in the split.
        champion_recalls: of the champion's model on the same samples; a class that it does not know has 0.
        split: on which both were measured: test, or audit where no test sample has a label.
    """
    ours, theirs = dict(recalls or {}), dict(champion_recalls or {})
    promoted, reason, waits = _judge(record, metrics, champion_metrics, trained, ours, theirs)
    return Promotion(
        promoted=promoted,
        reason=reason,
        metrics=dict(metrics),
        champion_round=record.champion.round,
        champion_metrics=dict(champion_metrics),
        recalls=ours,
        champion_recalls=theirs,
        split=split,
        waits=waits,
    )


def _judge(
    record: Round,
    metrics: Mapping[str, float],
    champion_metrics: Mapping[str, float],
    trained: bool,
    recalls: Mapping[str, float],
    champion_recalls: Mapping[str, float],
) -> tuple[bool, str, bool]:
    """Return whether the model is promoted, why, and whether that waits for a person."""
    if not trained:
        return False, "the model is untrained: fewer than two classes have a label", False
    if record.champion.round is None:
        return True, "the first trained model", False
    if not metrics or not champion_metrics:
        return False, "there are no test labels to compare the models on; `alfamix promote` decides", True
    settings = record.settings.promotion
    kind, _, name = settings.metric.partition(".")
    if settings.metric in metrics and settings.metric in champion_metrics:
        ours, theirs = metrics[settings.metric], champion_metrics[settings.metric]
    elif kind == "recall" and name in recalls and name in champion_recalls:
        ours, theirs = recalls[name], champion_recalls[name]
    else:
        return False, f"{settings.metric} was not measured; `alfamix promote` decides", True
    gain = (ours - theirs) * REPORTED.get(settings.metric, 1)
    promoted = gain >= settings.min_gain
    reason = (
        f"{settings.metric} {ours:.4f} against {theirs:.4f} of round {record.champion.round}: a gain of "
        f"{gain:+.4f}, {'at least' if promoted else 'less than'} the {settings.min_gain:g} that is asked"
    )
    falls = {each: champion_recalls[each] - recalls[each] for each in recalls if each in champion_recalls}
    worst = max(falls, key=lambda each: (falls[each], each), default=None)
    if promoted and worst is not None and falls[worst] > settings.max_class_fall:
        fall = (
            f"the recall of {worst} falls by {falls[worst]:.4f}, from {champion_recalls[worst]:.4f} to "
            f"{recalls[worst]:.4f}, more than the {settings.max_class_fall:g} that is allowed"
        )
        return False, f"{reason}; but {fall}", False
    return promoted, reason, False


def record_decision(store: Store, number: int, promotion: Promotion) -> Promotion:
    """Write promotion.json once; return the decision that stands, which may be an earlier run's."""
    key = layout.promotion(number)
    return Promotion.parse(write_once(store, key, promotion.document()), key)


def promote(store: Store, number: int, metrics: dict[str, float], fence: int) -> Champion:
    """Make a round's model, already at ``models/<n>/``, the champion; a newer one is left alone.

    Raises:
        ObjectChangedError: another run changed the champion at this moment.
    """
    current, tag = read(store)
    newest = current.round if current.newest is None else current.newest
    if newest is not None and newest >= number:
        return current
    return _swap(store, current, tag, number, metrics, fence, number)


def choose(
    store: Store, number: int | None, reason: str, now: datetime, kind: Literal["promote", "rollback"] = "promote"
) -> ManualDecision:
    """Make a person's choice the champion: recorded first, once, then applied.

    Args:
        store: the project.
        number: the round whose model is to serve; None for the one that served before (``rollback``).
        reason: the person's words.
        now: the moment, UTC.
        kind: what the person called it.

    Raises:
        InputError: there is no such model, no earlier champion, or it serves already.
        ObjectChangedError: a run promoted a model at this very moment.
    """
    current, tag = read(store)
    try:
        unfinished = store.read(layout.decision(_next_revision(current, tag)))
    except MissingObjectError:
        pass
    else:
        # the process that recorded it was killed before it applied it
        current, tag = _apply(store, current, tag, ManualDecision.parse(unfinished.data, "decision"))
    if number is None:
        if not current.before:
            raise InputError("there is no earlier champion to go back to")
        number = current.before[-1]
    if number == current.round:
        raise InputError(f"the model of round {number} is the champion already")
    if store.entry(layout.model(number) + CARD_FILE) is None:
        kept = [name for name in store.folders(layout.MODELS) if store.entry(f"{layout.MODELS}{name}/{CARD_FILE}")]
        listed = ", ".join(str(int(name)) for name in kept if layout.is_round(name)) or "none"
        raise InputError(f"the project keeps no model of round {number}; it has those of rounds {listed}")
    decision = ManualDecision(
        revision=_next_revision(current, tag),
        kind=kind,
        round=number,
        reason=reason,
        metrics=_measured(store, number),
        champion_round=current.round,
        champion_metrics=current.metrics,
        time=now,
    )
    store.create(layout.decision(decision.revision), decision.document())
    _apply(store, current, tag, decision)
    return decision


def _next_revision(current: Champion, tag: str | None) -> int:
    return current.revision + (tag is not None)


def _apply(store: Store, current: Champion, tag: str | None, decision: ManualDecision) -> tuple[Champion, str | None]:
    newest = max(current.newest or current.round or 0, decision.round)
    _swap(store, current, tag, decision.round, decision.metrics, current.fence, newest)
    return read(store)


def _swap(
    store: Store,
    current: Champion,
    tag: str | None,
    number: int,
    metrics: dict[str, float],
    fence: int,
    newest: int,
) -> Champion:
    before = current.before
    if number in before:
        before = before[: before.index(number)]  # going back: what came after it is no way back
    elif current.round is not None:
        before = (*before, current.round)
    new = Champion(
        revision=_next_revision(current, tag),
        fence=fence,
        round=number,
        metrics=metrics,
        before=before,
        newest=None if newest == number else newest,
    )
    if tag is None:
        store.create(layout.CHAMPION, new.document())
    else:
        store.swap(layout.CHAMPION, new.document(), tag)
    return new


def _measured(store: Store, number: int) -> dict[str, float]:
    """Return the metrics that a round has of its model; empty when it has none."""
    try:
        key = layout.evaluation(number)
        return Evaluation.parse(store.read(key).data, key).metrics
    except MissingObjectError:
        return {}
