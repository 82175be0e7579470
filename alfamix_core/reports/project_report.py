"""The page of a project: its rounds side by side, their gains, and its open queries."""

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
        settings: Present settings of the project.
        rounds: Records of all rounds, in any order.
        champion: Record of the champion; None if unknown.
        counts: Present number of samples by state; None stands for the counts of the newest round.
        open_queries: Present number of queries that wait for an answer.
        advice: Whole sentences on whether another round is worth it and what it may gain.
        label_counts: Number of labels by class name with which each round was planned, by round number.
        campaigns: Learning curves to compare, by name; may include the project's own.
        pages: Address of each round's page, by round number.
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
    """A row of the comparison.

    Attributes:
        name: Name of the campaign.
        rounds: Number of rounds that have an accuracy.
        mean: Mean accuracy over these rounds; None if there are none.
        first: Point of the first of these rounds; None if there are none.
        last: Point of the last of these rounds; None if there are none.
    """

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
    numbers = sorted(report.label_counts)
    newest = report.label_counts[numbers[-1]] if numbers else {}
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
        by_round=numbers,
        most_labels=max((count for counts in report.label_counts.values() for count in counts.values()), default=0),
        balance_words=balance_in_words({name: newest.get(name, 0) for name in report.settings.classes}),
        setting_rows=setting_rows(report.settings),
    )


def headline(report: ProjectReport) -> list[str]:
    """Return the project in a few sentences: its progress, its champion, and the queries that wait for people."""
    if not report.rounds:
        return ["There is no round yet: alfamix round starts the first one."]
    measures = measured([point_of(record) for record in report.rounds])
    sentences = []
    if measures:
        (first, start), (last, end) = measures[0], measures[-1]
        if first.round == last.round:
            sentences.append(f"The accuracy on the test split is {end:.1%} with {last.labels:,} training labels.")
        else:
            sentences.append(
                f"The accuracy on the test split went from {start:.1%} with {first.labels:,} training labels to "
                f"{end:.1%} with {last.labels:,} in {plural(len(report.rounds), 'round')}."
            )
    else:
        sentences.append(f"{plural(len(report.rounds), 'round')} so far, none of them with an accuracy.")
    if report.champion:
        number = report.champion.round
        sentences.append(f"The champion is the model of round {number}." if number else "There is no champion yet.")
    if report.open_queries:
        verb = "waits" if report.open_queries == 1 else "wait"
        sentences.append(f"{plural(report.open_queries, 'query', 'queries')} {verb} for an answer.")
    return [*sentences, *report.advice]


def campaign_rows(campaigns: Mapping[str, Sequence[CurvePoint]]) -> list[CampaignRow]:
    """Return one row per campaign, in the given order."""
    rows = []
    for name, curve in campaigns.items():
        pairs = measured(curve)
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
