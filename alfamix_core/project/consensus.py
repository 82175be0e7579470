"""What the answers about one sample come to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.project import QueueSettings


@dataclass(frozen=True)
class Verdict:
    """What is known of a sample from its annotators.

    Attributes:
        state: ``label`` (``label`` says which), ``skip`` and ``cannot_label`` are decided; ``disputed`` waits for a
            person; ``open`` needs more answers.
        label: the class, for ``label`` alone.
        round: the round of the answer that decided, 0 when nobody asked.
    """

    state: Literal["label", "skip", "cannot_label", "disputed", "open"]
    label: str | None = None
    round: int = 0


def verdict(events: Iterable[LabelEvent], settings: QueueSettings) -> Verdict:
    """Decide about one sample.

    Of each annotator the event with the greatest (time, event_id) counts; a withdrawal removes the annotator. From
    ``settings.answers`` answers on, an answer that more than half gave decides, or, with ``settings.agreement``, one
    that so many gave and more than any other; without one the query stays open until ``max_answers``, then the sample
    is disputed.

    Args:
        events: of one sample, each event_id once, in any order.
        settings: how many answers are asked for.
    """
    last: dict[str, LabelEvent] = {}
    for event in events:
        known = last.get(event.annotator)
        if known is None or event.order > known.order:
            last[event.annotator] = event
    answers = sorted((event for event in last.values() if event.kind != "withdraw"), key=lambda event: event.order)
    if len(answers) < settings.answers:
        return Verdict("open")
    ranked = Counter((event.kind, event.label) for event in answers).most_common(2)
    (kind, label), votes = ranked[0]
    second = ranked[1][1] if len(ranked) > 1 else 0
    if (votes >= settings.agreement and votes > second) if settings.agreement else 2 * votes > len(answers):
        asked = max(event.round for event in answers if (event.kind, event.label) == (kind, label))
        assert kind != "withdraw"
        return Verdict(kind, label, asked)
    return Verdict("disputed" if len(answers) >= settings.max_answers else "open")
