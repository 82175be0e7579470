"""The champion: which model production serves, and the one decision a round takes about it."""

from alfamix_core.errors import MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.once import write_once
from alfamix_core.records.champion import Champion
from alfamix_core.records.round import Promotion, Round
from alfamix_core.storage import Store


def read(store: Store) -> tuple[Champion, str | None]:
    """Return the champion and its tag; before the first promotion, one without a round and no tag."""
    try:
        stored = store.read(layout.CHAMPION)
    except MissingObjectError:
        return Champion(), None
    return Champion.parse(stored.data, layout.CHAMPION), stored.tag


def decide(record: Round, metrics: dict[str, float], champion_metrics: dict[str, float], trained: bool) -> Promotion:
    """Say whether a round's model is to become the champion.

    Args:
        record: the round; its champion is the one that was frozen in it.
        metrics: of the round's model on the test split, empty without test labels.
        champion_metrics: of the frozen champion's model on the same samples; empty when there is none.
        trained: False when the model still has its initial weights.
    """
    promoted, reason = _judge(record, metrics, champion_metrics, trained)
    return Promotion(
        promoted=promoted,
        reason=reason,
        metrics=metrics,
        champion_round=record.champion.round,
        champion_metrics=champion_metrics,
    )


def _judge(
    record: Round, metrics: dict[str, float], champion_metrics: dict[str, float], trained: bool
) -> tuple[bool, str]:
    if not trained:
        return False, "the model is untrained: fewer than two classes have a label"
    if record.champion.round is None:
        return True, "the first trained model"
    if not metrics:
        return False, "there are no test labels to compare the models on"
    settings = record.settings.promotion
    ours, theirs = metrics[settings.metric], champion_metrics[settings.metric]
    promoted = ours - theirs >= settings.min_gain
    return promoted, (
        f"{settings.metric} {ours:.4f} against {theirs:.4f} of round {record.champion.round}: a gain of "
        f"{ours - theirs:+.4f}, {'at least' if promoted else 'less than'} the {settings.min_gain:g} that is asked"
    )


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
    if current.round is not None and current.round >= number:
        return current
    new = Champion(revision=current.revision + (tag is not None), fence=fence, round=number, metrics=metrics)
    if tag is None:
        store.create(layout.CHAMPION, new.document())
    else:
        store.swap(layout.CHAMPION, new.document(), tag)
    return new
