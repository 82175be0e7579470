"""The champion: which model production serves, what a round proposes about it, and when that is applied.

A promotion counts once its round is exported. It is applied only while champion.json has the revision that the round
froze: a champion that a person chose meanwhile stays, and the promotion waits for `alfamix promote`.
"""

from collections.abc import Mapping
from typing import Literal

from alfamix_core.errors import MissingObjectError, ObjectChangedError, ObjectExistsError
from alfamix_core.project import layout
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import REPORTED
from alfamix_core.records.round import Promotion, Round
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
    model: str,
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
        model: digest of the round's model; empty when it still has its initial weights.
        recalls: of the round's model, by class, for the classes that have a sample in the split.
        champion_recalls: of the champion's model on the same samples; a class that it does not know has 0.
        split: on which both were measured: test, or audit where no test sample has a label.
    """
    ours, theirs = dict(recalls or {}), dict(champion_recalls or {})
    promoted, reason, waits = _judge(record, metrics, champion_metrics, bool(model), ours, theirs)
    return Promotion(
        promoted=promoted,
        reason=reason,
        model=model,
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


def apply(store: Store, record: Round) -> None:
    """Make the model of a committed round the champion, if it passed the gate and nobody chose another meanwhile.

    Repeating it changes nothing, and neither does a late run.
    """
    if record.promotion is None:
        return
    current, tag = read(store)
    if not is_due(current, record) or store.entry(layout.decision(current.revision + 1)) is not None:
        return
    try:
        swap(store, current, tag, record, record.promotion.metrics, record.fence)
    except (ObjectChangedError, ObjectExistsError):
        return  # another run applied it, or a person chose, at this very moment


def is_due(serving: Champion, record: Round) -> bool:
    """Whether a committed round's promotion is to be applied to this champion."""
    passed = record.is_committed and record.promotion is not None and record.promotion.promoted
    return passed and serving.revision == record.champion.revision


def waits(serving: Champion, record: Round) -> str:
    """Say that a committed round's model waits for a person's choice, and why; empty when it does not."""
    promotion = record.promotion
    newest = serving.newest or serving.round or 0
    if promotion is None or not record.is_committed or record.number <= newest:
        return ""
    if promotion.waits:
        return f"the model of round {record.number} could not be compared with the champion"
    if promotion.promoted and not is_due(serving, record):
        return f"the model of round {record.number} passed the gate, but another champion was chosen while it ran"
    return ""


def swap(
    store: Store, current: Champion, tag: str | None, record: Round, metrics: Mapping[str, float], fence: int
) -> Champion:
    """Replace the champion, as it was read, by the model of a round.

    Raises:
        ObjectChangedError, ObjectExistsError: it is another one by now.
    """
    number, before = record.number, current.before
    if number in before:
        before = before[: before.index(number)]  # going back: what came after it is no way back
    elif current.round is not None:
        before = (*before, current.round)
    newest = max(current.newest or current.round or 0, number)
    new = Champion(
        revision=current.revision + 1,
        fence=fence,
        round=number,
        model=record.model,
        metrics=dict(metrics),
        before=before,
        newest=None if newest == number else newest,
    )
    if tag is None:
        store.create(layout.CHAMPION, new.document())
    else:
        store.swap(layout.CHAMPION, new.document(), tag)
    return new
