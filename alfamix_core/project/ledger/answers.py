"""Statistics of the answers: their number, delay and agreement."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from alfamix_core.project.ledger.ledger import Ledger

_QUANTILES = (0.5, 0.9)
_RECENT = """
    with recent as (
        select events.*, least(time, loaded_at) as moment from events semi join samples using (sample_id)
        order by moment desc, event_id desc limit 1000
    )
"""


@dataclass(frozen=True)
class Answers:
    """Statistics of the label events about samples of the project.

    Attributes:
        kinds: Number of events by kind.
        newest: Moment of the newest event; None without any.
        waiting: Quantiles of the seconds from question to answer, over the answers to questions among the newest
            1,000 events; empty without any.
        agreement: Share of equal pairs among the standing answers of two annotators to one sample, over the samples of
            the newest 1,000 events; None without such a pair.
    """

    kinds: Mapping[str, int]
    newest: datetime | None
    waiting: Mapping[float, float]
    agreement: float | None


def summarise(ledger: Ledger) -> Answers:
    """Return the statistics of all answers."""
    kinds = ledger.query(
        """select kind, count(*) as count, max(greatest(least(time, loaded_at), '0001-01-02'::timestamptz)) as newest
        from events semi join samples using (sample_id) group by kind order by kind"""
    ).to_pylist()
    waiting = ledger.query(
        f"""{_RECENT}
        select epoch(moment - max(asked_at)) as seconds
        from recent join questions on questions.sample_id = recent.sample_id and asked_at <= moment
        where kind <> 'withdraw' group by event_id, recent.sample_id, annotator, kind, label, moment order by seconds"""
    )["seconds"].to_pylist()
    (agreement,) = ledger.query(
        f"""{_RECENT}
        , standing as materialized (select * from standing_answers where sample_id in (select sample_id from recent))
        select avg((one.kind = other.kind and one.label is not distinct from other.label)::integer) as agreement
        from standing as one join standing as other
            on one.sample_id = other.sample_id and one.annotator < other.annotator"""
    )["agreement"].to_pylist()
    last = len(waiting) - 1
    return Answers(
        kinds={row["kind"]: row["count"] for row in kinds},
        newest=max((row["newest"] for row in kinds), default=None),
        waiting={share: waiting[min(last, int(share * len(waiting)))] for share in _QUANTILES if waiting},
        agreement=agreement,
    )
