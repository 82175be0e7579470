"""What the answers say about the people who give them: how many, how soon, how much alike."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LATEST = 1000
_QUANTILES = (0.5, 0.9)


@dataclass(frozen=True)
class Answers:
    """An account of label events.

    Attributes:
        kinds: events that count, by kind, each event_id once.
        newest: of all, microseconds since 1970; 0 without any.
        waiting: quantiles of the seconds from question to answer, over the answers to questions among the newest
            1,000 events; empty without any.
        agreement: share of the pairs of answers by two annotators to one sample that are equal, over the samples of
            the newest 1,000 events; None without such a pair. Of an annotator the last answer counts.
    """

    kinds: Mapping[str, int] = field(default_factory=dict)
    newest: int = 0
    waiting: Mapping[float, float] = field(default_factory=dict)
    agreement: float | None = None


def account(events: pa.Table, questions: pa.Table) -> Answers:
    """Look at the answers.

    Args:
        events: see ``records.segment.EVENTS``, each event_id once.
        questions: see ``records.segment.QUESTIONS``.
    """
    if not len(events):
        return Answers()
    kinds = dict(zip(*(column.to_pylist() for column in events["kind"].value_counts().flatten()), strict=True))
    latest = pc.select_k_unstable(events, k=_LATEST, sort_keys=[("time", "descending"), ("event_id", "descending")])
    recent = events.take(latest)
    asked = questions.filter(pc.is_in(questions["sample_id"], value_set=recent["sample_id"].combine_chunks()))
    everything = events.filter(pc.is_in(events["sample_id"], value_set=recent["sample_id"].combine_chunks()))
    columns = ["sample_id", "kind", "label", "annotator", "time", "event_id"]
    return Answers(
        kinds={str(kind): int(count) for kind, count in sorted(kinds.items())},
        newest=int(pc.max(events["time"]).as_py()),
        waiting=_quantiles(_waiting(recent.to_pylist(), asked.select(["sample_id", "asked_at", "key"]).to_pylist())),
        agreement=_agreement(everything.select(columns).to_pylist()),
    )


def _waiting(answers: Iterable[Mapping[str, Any]], questions: Iterable[Mapping[str, Any]]) -> list[float]:
    """Return the seconds from the last question about a sample that came before an answer to that answer."""
    asked: dict[str, list[int]] = defaultdict(list)
    for question in questions:
        asked[question["sample_id"]].append(question["asked_at"])
    found = []
    for answer in answers:
        before = [time for time in asked[answer["sample_id"]] if time <= answer["time"]]
        if before and answer["kind"] != "withdraw":
            found.append((answer["time"] - max(before)) / 1e6)
    return sorted(found)


def _quantiles(ordered: list[float]) -> dict[float, float]:
    """Return the smallest value that at least that share of the values does not exceed."""
    last = len(ordered) - 1
    return {share: ordered[min(last, int(share * len(ordered)))] for share in _QUANTILES if ordered}


def _agreement(events: Iterable[Mapping[str, Any]]) -> float | None:
    by_sample: dict[str, dict[str, tuple[str, str | None]]] = defaultdict(dict)
    for event in sorted(events, key=lambda event: (event["time"], event["event_id"])):
        if event["kind"] == "withdraw":
            by_sample[event["sample_id"]].pop(event["annotator"], None)
        else:
            by_sample[event["sample_id"]][event["annotator"]] = (event["kind"], event["label"])
    pairs = Counter(
        first == second for answers in by_sample.values() for first, second in combinations(answers.values(), 2)
    )
    return pairs[True] / pairs.total() if pairs else None
