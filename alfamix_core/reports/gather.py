"""The pages, filled with values from the project's files."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from alfamix_core.project import budgets, champion, rounds, stopping
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.query import ChosenSample
from alfamix_core.records.round import Outcome, Round
from alfamix_core.records.selection import Selection
from alfamix_core.records.stage import StageLog
from alfamix_core.reports import project_report, round_report
from alfamix_core.reports.charts import MapPoint
from alfamix_core.reports.curve import CurvePoint, point_of
from alfamix_core.reports.project_report import ProjectReport
from alfamix_core.reports.round_report import RoundReport
from alfamix_core.storage import Store


def round_page(
    store: Store,
    record: Round,
    outcome: Outcome,
    chosen: Sequence[ChosenSample],
    account: Selection,
    quality: Evaluation,
    log: StageLog,
    thumbnails: Path,
) -> str:
    """Return a round's page as HTML.

    Args:
        store: Store of the project, for the earlier rounds' points of the learning curve.
        record: Record of the round as planned.
        outcome: Outcome of the round.
        chosen: Queries of the round, best first.
        account: Account of how they were chosen.
        quality: Evaluation of the round's model.
        log: Log of all its stages.
        thumbnails: Folder with the queries' thumbnails.
    """
    exported = record.model_copy(update={"state": "exported", "outcome": outcome})
    earlier = [point_of(other) for other in rounds.read_all(store) if other.number < record.number]
    pictures = {path.stem: path.read_bytes() for path in sorted(thumbnails.glob("*.webp"))}
    return round_report.render(
        RoundReport(
            round=exported,
            promotion=quality.promotion,
            curve=(*earlier, point_of(exported)),
            queries=tuple(chosen),
            thumbnails=pictures,
            label_counts=outcome.labels,
            confusion=quality.confusion,
            map_points=tuple(MapPoint(p.sample_id, p.kind, p.x, p.y, p.name) for p in account.map),
            candidate_scores=account.candidate_scores,
            log=log,
        )
    )


def project_page(
    store: Store,
    now: datetime,
    campaigns: Mapping[str, Sequence[CurvePoint]] | None = None,
    pages: Mapping[int, str] | None = None,
) -> str:
    """Return the project's page as HTML.

    Args:
        store: Store of the project.
        now: Present time, which decides whether queries have expired.
        campaigns: Learning curves to compare, by name.
        pages: Relative address of each round's page, by number.
    """
    settings = rounds.read_settings(store)
    with open_ledger(store, settings, now) as ledger:
        counts = ledger.counts()
    records = tuple(rounds.read_all(store))
    serving = champion.read(store).value
    advice = stopping.advise(settings, records, counts, budgets.spent(settings, records, counts, now))
    sentences = (advice.text, advice.forecast.text if advice.forecast else "")
    return project_report.render(
        ProjectReport(
            settings=settings,
            rounds=records,
            champion=serving,
            counts=counts,
            open_queries=counts.queried,
            advice=tuple(f"{line[0].upper()}{line[1:]}." for line in sentences if line),
            label_counts={record.number: record.outcome.labels for record in records if record.outcome},
            campaigns=campaigns or {},
            pages=pages or {},
        )
    )
