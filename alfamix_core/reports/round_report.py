"""The page of one round: its model, its queries and their reasons, and its cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from alfamix_core.evaluation.class_metrics import class_metrics
from alfamix_core.records.query import ChosenSample
from alfamix_core.records.round import Promotion, Round
from alfamix_core.records.stage import StageLog
from alfamix_core.reports.balance import balance_in_words, class_balance
from alfamix_core.reports.charts import MapPoint, histogram, learning_curve, map_marks
from alfamix_core.reports.confusion import accuracy_interval, mistakes
from alfamix_core.reports.curve import CurvePoint, measured
from alfamix_core.reports.page import plural, points, render_page, sentence
from alfamix_core.reports.readings import reading_of
from alfamix_core.reports.settings import setting_rows
from alfamix_core.reports.timings import stage_times

MAX_THUMBNAILS = 300
MAX_QUARANTINED = 50
MAX_MATRIX = 30


@dataclass(frozen=True)
class RoundReport:
    """Everything that the page shows; a section whose field is empty says so.

    Attributes:
        round: Record of the round, with its outcome once there is one.
        promotion: Decision about the round's model; None before the decision, or without test labels.
        curve: Points of all rounds so far, this one included, in any order.
        queries: Queries of the round, best first; the first 300 are shown.
        thumbnails: PNG, JPEG or WebP bytes by sample_id, as ``thumbnail`` returns them.
        label_counts: Number of labels in all splits so far, by class name; a missing class has none.
        confusion: (K, K) counts on the test split, row = label, column = prediction, in the order of the settings'
            classes; empty without test labels.
        map_points: Some of the pool, labelled and queried samples in two dimensions, drawn to one scale.
        candidate_scores: Scores of the samples among which the strategy chose, as ``ChosenSample.score``; finite.
        log: Timings and quarantined samples of all stages.
    """

    round: Round
    promotion: Promotion | None = None
    curve: tuple[CurvePoint, ...] = ()
    queries: tuple[ChosenSample, ...] = ()
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    label_counts: Mapping[str, int] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    map_points: tuple[MapPoint, ...] = ()
    candidate_scores: tuple[float, ...] = ()
    log: StageLog | None = None


def render(report: RoundReport) -> str:
    """Return the page as one HTML file; equal reports give equal text."""
    record = report.round
    settings, outcome = record.settings, record.outcome
    strategy = outcome.strategy if outcome else settings.strategy.name
    reading = reading_of(strategy)
    queries = sorted(report.queries, key=lambda query: query.rank)
    shown = queries[:MAX_THUMBNAILS]
    candidates = [reading.of(score) for score in report.candidate_scores]
    asked = [reading.of(query.score) for query in queries if query.score is not None]
    cap = outcome.summary.get("cap") if outcome else None
    runs = report.log.runs if report.log else ()
    quarantined = report.log.quarantined if report.log else ()
    return render_page(
        "round.html",
        report=report,
        record=record,
        settings=settings,
        outcome=outcome,
        strategy=strategy,
        reading=reading,
        headline=headline(report),
        untested=untested(record),
        gain=_gain(report),
        interval=accuracy_interval(report.confusion),
        tested=sum(map(sum, report.confusion)) or record.counts.test,
        curve=learning_curve({settings.name: report.curve}, here=record.number),
        curve_points=sorted(report.curve, key=lambda point: point.round),
        queries=shown,
        unshown=len(queries) - len(shown),
        suggestions=[name for name in settings.classes if any(query.suggestion == name for query in shown)],
        balance=class_balance(settings.classes, report.label_counts, (query.suggestion for query in queries)),
        balance_words=balance_in_words({name: report.label_counts.get(name, 0) for name in settings.classes}),
        unsuggested=sum(query.suggestion not in settings.classes for query in queries),
        marks=map_marks(report.map_points),
        ranks={query.sample_id: query.rank for query in shown},
        class_numbers={name: number for number, name in enumerate(settings.classes)},
        scores=histogram(candidates, asked, reading.name, cap if isinstance(cap, (int, float)) else None),
        class_metrics=list(zip(settings.classes, class_metrics(report.confusion), strict=False)),
        mistakes=mistakes(settings.classes, report.confusion) if report.confusion else [],
        matrix=report.confusion if len(settings.classes) <= MAX_MATRIX else (),
        stages=stage_times(runs),
        quarantined=quarantined[:MAX_QUARANTINED],
        all_quarantined=max(len(quarantined), outcome.quarantined if outcome else 0),
        setting_rows=setting_rows(settings),
    )


def headline(report: RoundReport) -> list[str]:
    """Return the round in a few sentences: its queries, the accuracy of its model, and the promotion."""
    record, outcome = report.round, report.round.outcome
    if record.state == "failed":
        return [sentence(f"This round failed: {record.reason or 'no reason was recorded'}")]
    if outcome is None:
        return ["This round is planned and has not asked anything yet."]
    first = f"It asks {plural(outcome.queries, 'query', 'queries')}, chosen by {outcome.strategy}"
    if outcome.strategy != record.settings.strategy.name:
        first += f" (the cold start of {record.settings.strategy.name})"
    if outcome.short_by:
        first += f"; {outcome.short_by:,} fewer than the budget: {outcome.reason or 'no reason was recorded'}"
    sentences = [sentence(first)]
    accuracy = outcome.metrics.get("accuracy")
    if accuracy is None:
        sentences.append(untested(record))
    else:
        gain = _gain(report)
        since = f", {points(gain[1])} since round {gain[0]}" if gain else ""
        sentences.append(f"Its model has an accuracy of {accuracy:.1%} on the test split{since}.")
    if report.promotion:
        verb = "Promoted" if report.promotion.promoted else "Not promoted"
        sentences.append(sentence(f"{verb}: {report.promotion.reason}"))
    elif outcome.promoted:
        sentences.append("Its model became the champion.")
    return sentences


def untested(record: Round) -> str:
    """Return why there is no accuracy, and how to get one."""
    if record.counts.test:
        return f"No accuracy: this round's model was not evaluated on the {plural(record.counts.test, 'test label')}."
    return "No test labels yet: give labelled samples the split test, and the next round evaluates its model on them."


def _gain(report: RoundReport) -> tuple[int, float] | None:
    accuracy = report.round.outcome.metrics.get("accuracy") if report.round.outcome else None
    earlier = [(p.round, before) for p, before in measured(report.curve) if p.round < report.round.number]
    if accuracy is None or not earlier:
        return None
    return earlier[-1][0], accuracy - earlier[-1][1]
