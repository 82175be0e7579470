"""The layout of charts, in percent of their area, so that one drawing fits every size of screen.

The templates in charts.html draw what is computed here. Labels are HTML beside the drawing, because text in a scaled
drawing is unreadable on a phone. Colours are variables of the stylesheet, so that they follow the light or dark theme.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alfamix_core.reports.curve import CurvePoint, measured

COLOURS = 6
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0Z",
    "M-4-4H4V4H-4Z",
    "M0-5.6L5.6 0L0 5.6L-5.6 0Z",
    "M0-5.4L5.2 4H-5.2Z",
    "M0 5.4L5.2-4H-5.2Z",
    "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
)
DASHES = ("", "7 4", "2 4", "10 4 2 4", "5 3", "1 3")
MAP_SIDE = 1000


@dataclass(frozen=True)
class MapPoint:
    """A sample on the map.

    Attributes:
        sample_id: ID of the sample, as in the manifest.
        kind: State of the sample.
        x: Horizontal coordinate, finite, in any unit; both axes have one scale.
        y: Vertical coordinate, finite, growing upwards.
        name: Label of a labelled sample, predicted class of any other; may be empty.
    """

    sample_id: str
    kind: Literal["pool", "labelled", "queried"]
    x: float
    y: float
    name: str = ""


@dataclass(frozen=True)
class Tick:
    """A position on an axis, in percent of its length from its start, and the text there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A measured point.

    Attributes:
        x: Distance from the left, in percent.
        y: Distance from the top, in percent.
        tip: Text of the tooltip.
        hollow: Whether the mark is drawn as an outline.
        here: Whether the mark is that of the page's own round.
    """

    x: float
    y: float
    tip: str
    hollow: bool = False
    here: bool = False


@dataclass(frozen=True)
class Line:
    """A series; colour, shape and dash together tell it apart, never colour alone."""

    name: str
    colour: int
    shape: str
    dash: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class LineChart:
    """Curves with two labelled axes."""

    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram; all lengths are in percent.

    Attributes:
        x: Distance from the left.
        width: Width of the bin.
        height: Height for all candidates in the bin.
        asked_height: Height for the candidates in the bin that were asked.
        tip: Text of the tooltip.
    """

    x: float
    width: float
    height: float
    asked_height: float
    tip: str


@dataclass(frozen=True)
class Histogram:
    """A histogram of the candidates' scores; inside it, that of the candidates that were asked."""

    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    cut: Tick | None
    beyond: int
    summary: str


@dataclass(frozen=True)
class MapMark:
    """A point of the map, with its coordinates in the square of side ``MAP_SIDE``."""

    point: MapPoint
    x: int
    y: int


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about ``wanted`` round numbers within [low, high], in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def learning_curve(series: Mapping[str, Sequence[CurvePoint]], here: int | None = None) -> LineChart | None:
    """Lay out accuracy against labels.

    Args:
        series: Points by name of the campaign; points without an accuracy are left out.
        here: Number of the round to mark in the first series.

    Returns:
        The chart, or None if no point has an accuracy.
    """
    points = {name: measured(line) for name, line in series.items()}
    all_pairs = [pair for line in points.values() for pair in line]
    if not all_pairs:
        return None
    left, right = _padded([float(p.labels) for p, _ in all_pairs], 0.03, at_least=1.0)
    low, high = _padded([accuracy for _, accuracy in all_pairs], 0.12, at_least=0.04)
    low, high = max(low, 0.0), min(high, 1.0)
    # an accuracy of 1 keeps its mark inside the area
    top = high if max(accuracy for _, accuracy in all_pairs) < high else high + 0.02 * (high - low)
    lines = []
    for index, (name, pairs) in enumerate(points.items()):
        prefix = f"{name}, " if len(points) > 1 else ""
        marks = tuple(
            Mark(
                x=_percent(p.labels, left, right),
                y=100 - _percent(accuracy, low, top),
                tip=f"{prefix}round {p.round}: {accuracy:.1%} with {p.labels:,} labels"
                + (", promoted" if p.promoted else ""),
                hollow=len(points) == 1 and not p.promoted,
                here=index == 0 and p.round == here,
            )
            for p, accuracy in pairs
        )
        lines.append(
            Line(
                name=name,
                colour=index % COLOURS,
                shape=SHAPES[index % len(SHAPES)],
                dash=DASHES[index % len(DASHES)],
                path="M" + "L".join(f"{mark.x} {mark.y}" for mark in marks) if marks else "",
                marks=marks,
            )
        )
    steps = ticks(low, high)
    digits = 0 if all(abs(100 * step - round(100 * step)) < 1e-6 for step in steps) else 1
    return LineChart(
        lines=tuple(lines),
        x_ticks=tuple(Tick(_percent(x, left, right), f"{x:,.0f}") for x in ticks(left, right) if x == int(x)),
        y_ticks=tuple(Tick(_percent(y, low, top), f"{y:.{digits}%}") for y in steps),
        summary="Accuracy on the test split against labels. "
        + "; ".join(
            f"{name}: from {pairs[0][1]:.1%} with {pairs[0][0].labels:,} labels "
            f"to {pairs[-1][1]:.1%} with {pairs[-1][0].labels:,}"
            for name, pairs in points.items()
            if pairs
        ),
    )


def histogram(values: Sequence[float], asked: Sequence[float], name: str, cut: float | None = None) -> Histogram | None:
    """Lay out a histogram.

    Args:
        values: Values of all candidates, as people read them; finite.
        asked: Values of the candidates that were asked, drawn inside the bars.
        name: Name of the values.
        cut: Value to mark, such as the cap that was reached.

    Returns:
        The chart, or None without values. A long tail is left off the axis and counted in ``beyond``.
    """
    if not values:
        return None
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    bulk_low, bulk_high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    if high - low > 4 * (bulk_high - bulk_low) > 0:
        low, high = bulk_low, bulk_high
    if high == low:
        low, high = low - 0.5, high + 0.5
    bins = max(8, min(40, math.ceil(math.sqrt(len(values)))))
    counts, asked_counts = _bins(values, low, high, bins), _bins(asked, low, high, bins)
    tallest = max(counts + asked_counts)
    top = tallest * 1.06
    width = (high - low) / bins
    bars = tuple(
        Bar(
            x=round(100 * i / bins, 3),
            width=round(100 / bins, 3),
            height=_percent(count, 0, top),
            asked_height=_percent(asked_count, 0, top),
            tip=f"{name} {low + i * width:.3g} to {low + (i + 1) * width:.3g}: {count:,} candidates, "
            f"{asked_count:,} asked",
        )
        for i, (count, asked_count) in enumerate(zip(counts, asked_counts, strict=True))
    )
    inside = sum(counts)
    return Histogram(
        bars=bars,
        x_ticks=tuple(Tick(_percent(x, low, high), f"{x:.4g}") for x in ticks(low, high)),
        y_ticks=tuple(Tick(_percent(y, 0, top), f"{y:,.0f}") for y in ticks(0, tallest, 4) if y == int(y)),
        cut=Tick(_percent(cut, low, high), f"{cut:.4g}") if cut is not None and low <= cut <= high else None,
        beyond=len(values) - inside,
        summary=f"Histogram of the {name} of {len(values):,} candidates, from {ordered[0]:.4g} to {ordered[-1]:.4g}, "
        f"median {ordered[len(ordered) // 2]:.4g}; {len(asked):,} of them were asked.",
    )


def map_marks(points: Sequence[MapPoint]) -> list[MapMark]:
    """Place the points in the square, with one scale for both axes; pool first, then labelled, then queried."""
    if not points:
        return []
    xs, ys = [p.x for p in points], [p.y for p in points]
    centre_x, centre_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    extent = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = 0.94 * MAP_SIDE / extent
    order = {"pool": 0, "labelled": 1, "queried": 2}
    return [
        MapMark(p, round(MAP_SIDE / 2 + (p.x - centre_x) * scale), round(MAP_SIDE / 2 - (p.y - centre_y) * scale))
        for p in sorted(points, key=lambda p: order[p.kind])
    ]


def _percent(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 3)


def _padded(values: Sequence[float], share: float, at_least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max((high - low) * share, at_least / 2 if high == low else 0.0)
    return low - pad, high + pad


def _bins(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        if low <= value <= high:
            counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return counts
