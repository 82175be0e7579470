"""The page of a project: its rounds side by side, what they gained, and what is open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Round
from alfamix_core.reports.balance import balance_in_words
from alfamix_core.reports.charts import learning_curve
from alfamix_core.reports.curve import CurvePoint, measured, point_of
from alfamix_core.reports.page import plural, render_page
from alfamix_core.reports.settings import setting_rows


@dataclass(frozen=True)
class ProjectReport:
    """Everything that the page shows; a section whose field is empty says so.

    Attributes:
        settings: the project's, as they are now.
        rounds: every round's record; any order.
        champion: which round's model serves; None when unknown.
        counts: samples by what is known of them, now; those of the newest round when None.
        open_queries: asked and not yet answered, now.
        advice: whether another round is worth it and what it may bring, as whole sentences.
        label_counts: by round number, the labels by class name with which the round was planned.
        campaigns: curves to compare, by name; may include this project's own.
        pages: relative address of each round's page, by number.
    """

    settings: Project
    rounds: tuple[Round, ...] = ()
    champion: Champion | None = None
    counts: Counts | None = None
    open_queries: int = 0
    advice: tuple[str, ...] = ()
    label_counts: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    campaigns: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    pages: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CampaignRow:
    """A line of the comparison: means are over the rounds that have an accuracy; None when none has."""

    name: str
    rounds: int
    mean: float | None
    first: CurvePoint | None
    last: CurvePoint | None


def render(report: ProjectReport) -> str:
    """Return the page as one HTML file; equal reports give equal text."""
    rounds = sorted(report.rounds, key=lambda record: record.number)
    counts = report.counts or (rounds[-1].counts if rounds else Counts())
    curve = [point_of(record) for record in rounds]
    by_round = sorted(report.label_counts)
    newest = report.label_counts[by_round[-1]] if by_round else {}
    return render_page(
        "project.html",
        report=report,
        settings=report.settings,
        headline=headline(report),
        rounds=rounds[::-1],
        points={point.round: point for point in curve},
        counts=counts,
        best=max((accuracy for _, accuracy in measured(curve)), default=None),
        curve=learning_curve({report.settings.name: curve}),
        comparison=learning_curve(report.campaigns),
        campaigns=campaign_rows(report.campaigns),
        by_round=by_round,
        most_labels=max((count for counts in report.label_counts.values() for count in counts.values()), default=0),
        balance_words=balance_in_words({name: newest.get(name, 0) for name in report.settings.classes}),
        setting_rows=setting_rows(report.settings),
    )


def headline(report: ProjectReport) -> list[str]:
    """Return the project in a few plain sentences: how far it is, what serves, what waits for people."""
    if not report.rounds:
        return ["No round yet: alfamix round starts the first one."]
    measures = measured([point_of(record) for record in report.rounds])
    sentences = []
    if measures:
        (first, start), (last, end) = measures[0], measures[-1]
        if first.round == last.round:
            sentences.append(f"Right on {end:.1%} of the test split with {last.labels:,} training labels.")
        else:
            sentences.append(
                f"From {start:.1%} with {first.labels:,} training labels to {end:.1%} with {last.labels:,}, "
                f"in {plural(len(report.rounds), 'round')}."
            )
    else:
        sentences.append(f"{plural(len(report.rounds), 'round')} so far, none with an accuracy.")
    if report.champion:
        number = report.champion.round
        sentences.append(f"The champion is round {number}." if number else "No champion yet.")
    if report.open_queries:
        verb = "waits" if report.open_queries == 1 else "wait"
        sentences.append(f"{plural(report.open_queries, 'query', 'queries')} {verb} for an answer.")
    return [*sentences, *report.advice]


def campaign_rows(campaigns: Mapping[str, Sequence[CurvePoint]]) -> list[CampaignRow]:
    """Return one row a campaign, in the given order."""
    rows = []
    for name, line in campaigns.items():
        pairs = measured(line)
        rows.append(
            CampaignRow(
                name=name,
                rounds=len(pairs),
                mean=fmean(accuracy for _, accuracy in pairs) if pairs else None,
                first=pairs[0][0] if pairs else None,
                last=pairs[-1][0] if pairs else None,
            )
        )
    return rows
