"""The champion: the model that production serves, what a round proposes about it, and when that is applied.

A promotion counts once its round is exported. It is applied only while champion.json has the revision that the round
froze: a champion that a person chose meanwhile stays, and the promotion waits for `alfamix promote`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from alfamix_core.errors import InputError, ObjectChangedError, ObjectExistsError
from alfamix_core.project import layout, versioned
from alfamix_core.project.versioned import Versioned
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import REPORTED
from alfamix_core.records.round import Promotion, Round
from alfamix_core.storage import Store


def read(store: Store) -> Versioned[Champion]:
    """Return the champion; before the first promotion, an empty one without a tag."""
    return versioned.read(store, layout.CHAMPION, Champion())


def check_rounds(serving: Champion, newest: int) -> None:
    """Refuse a champion that is newer than the rounds, as after a restore of ``rounds/`` alone.

    Args:
        serving: The champion.
        newest: Number of the newest round; 0 before the first.

    Raises:
        InputError: It names a round that does not exist yet; the next round would take that number.
    """
    named = max((number for number in (serving.round, serving.newest, *serving.before) if number), default=0)
    if named > newest:
        ends = f"ends with round {newest}" if newest else "has no round"
        raise InputError(
            f"{layout.CHAMPION} names round {named}, and {layout.ROUNDS} {ends}: put back both as of one moment"
        )


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
    """Decide whether a round's model becomes the champion.

    Args:
        record: Round; its champion is the one frozen in it.
        metrics: Metrics of the round's model on the test split, empty without test labels.
        champion_metrics: Metrics of the frozen champion on the same samples; empty without one.
        model: Digest of the round's model; empty while it has its initial weights.
        recalls: Recalls of the round's model, by class, for classes with a sample in the split.
        champion_recalls: Recalls of the champion on the same samples; 0 for a class that it does not know.
        split: Split on which both were measured: test, or audit if no test sample has a label.
    """
    recalls, champion_recalls = dict(recalls or {}), dict(champion_recalls or {})
    verdict = _judge(record, metrics, champion_metrics, bool(model), recalls, champion_recalls)
    return Promotion(
        promoted=verdict.promoted,
        reason=verdict.reason,
        model=model,
        metrics=dict(metrics),
        champion_round=record.champion.round,
        champion_metrics=dict(champion_metrics),
        recalls=recalls,
        champion_recalls=champion_recalls,
        split=split,
        waits=verdict.waits,
    )


class _Verdict(NamedTuple):
    """Whether the model is promoted, why, and whether that waits for a person."""

    promoted: bool
    reason: str
    waits: bool = False


def _judge(
    record: Round,
    metrics: Mapping[str, float],
    champion_metrics: Mapping[str, float],
    trained: bool,
    recalls: Mapping[str, float],
    champion_recalls: Mapping[str, float],
) -> _Verdict:
    """Compare the two models."""
    if not trained:
        return _Verdict(False, "the model is untrained: fewer than two classes have a label")
    if record.champion.round is None:
        return _Verdict(True, "the first trained model")
    if not metrics or not champion_metrics:
        return _Verdict(
            False, "there are no test labels to compare the models on; `alfamix promote` decides", waits=True
        )
    settings = record.settings.promotion
    kind, _, name = settings.metric.partition(".")
    if settings.metric in metrics and settings.metric in champion_metrics:
        value, champion_value = metrics[settings.metric], champion_metrics[settings.metric]
    elif kind == "recall" and name in recalls and name in champion_recalls:
        value, champion_value = recalls[name], champion_recalls[name]
    else:
        return _Verdict(False, f"{settings.metric} was not measured; `alfamix promote` decides", waits=True)
    gain = (value - champion_value) * REPORTED.get(settings.metric, 1)
    promoted = gain >= settings.min_gain
    reason = (
        f"{settings.metric} {value:.4f} against {champion_value:.4f} of round {record.champion.round}: a gain of "
        f"{gain:+.4f}, {'at least' if promoted else 'less than'} the required {settings.min_gain:g}"
    )
    falls = {label: champion_recalls[label] - recalls[label] for label in recalls if label in champion_recalls}
    worst = max(falls, key=lambda label: (falls[label], label), default=None)
    if promoted and worst is not None and falls[worst] > settings.max_class_fall:
        fall = (
            f"the recall of {worst} falls by {falls[worst]:.4f}, from {champion_recalls[worst]:.4f} to "
            f"{recalls[worst]:.4f}, more than the {settings.max_class_fall:g} that is allowed"
        )
        return _Verdict(False, f"{reason}; but {fall}")
    return _Verdict(promoted, reason)


def apply(store: Store, record: Round) -> None:
    """Make the model of a committed round the champion, if it passed the gate and no person chose another meanwhile.

    Repeating it changes nothing, nor does a late run.
    """
    if record.promotion is None:
        return
    current = read(store)
    if not is_due(current.value, record) or store.entry(layout.decision(current.value.revision + 1)) is not None:
        return
    try:
        swap(store, current, record, record.promotion.metrics, record.fence)
    except (ObjectChangedError, ObjectExistsError):
        return  # another run applied it, or a person chose, at this very moment


def is_due(serving: Champion, record: Round) -> bool:
    """Whether a committed round's promotion is to be applied to this champion."""
    passed = record.is_committed and record.promotion is not None and record.promotion.promoted
    return passed and serving.revision == record.champion.revision


def waits(serving: Champion, record: Round) -> str:
    """Explain why a committed round's model waits for a person's choice; empty where it does not."""
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
    store: Store, current: Versioned[Champion], record: Round, metrics: Mapping[str, float], fence: int
) -> Champion:
    """Replace the champion, as it was read, by the model of a round.

    Raises:
        ObjectChangedError, ObjectExistsError: It was replaced meanwhile.
    """
    number, old = record.number, current.value
    before = old.before
    if number in before:
        before = before[: before.index(number)]  # going back: no later champion is a way back
    elif old.round is not None:
        before = (*before, old.round)
    newest = max(old.newest or old.round or 0, number)
    new = Champion(
        revision=old.revision + 1,
        fence=fence,
        round=number,
        model=record.model,
        metrics=dict(metrics),
        before=before,
        newest=None if newest == number else newest,
    )
    versioned.replace(store, layout.CHAMPION, new, current.tag)
    return new
