"""Scores of each class from a confusion matrix, and the most frequent mistakes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class on the test split; a ratio without a denominator is None.

    Attributes:
        name: Name of the class.
        support: Number of test samples with this label.
        predicted: Number of test samples for which the model predicts this class.
        precision: Share of ``predicted`` that is correct.
        recall: Share of ``support`` that the model predicts correctly.
        f1: Harmonic mean of precision and recall; 0 if both are 0, None if the class is neither a label nor predicted.
    """

    name: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Mistake:
    """A label mistaken for another class: the number of times, and their share of the label's samples."""

    label: str
    prediction: str
    count: int
    share: float


def class_scores(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[ClassScore]:
    """Return one row per class, in the order of ``classes``; ``confusion`` is (K, K), row = label."""
    columns = [sum(column) for column in zip(*confusion, strict=True)]
    return [
        ClassScore(
            name=name,
            support=sum(row),
            predicted=columns[k],
            precision=row[k] / columns[k] if columns[k] else None,
            recall=row[k] / sum(row) if sum(row) else None,
            f1=2 * row[k] / (sum(row) + columns[k]) if sum(row) + columns[k] else None,
        )
        for k, (name, row) in enumerate(zip(classes, confusion, strict=True))
    ]


def mistakes(classes: Sequence[str], confusion: Sequence[Sequence[int]], most: int = 10) -> list[Mistake]:
    """Return at most ``most`` mistakes, most frequent first; ties keep the order of the classes."""
    all_mistakes = [
        Mistake(classes[label], classes[prediction], count, count / sum(row))
        for label, row in enumerate(confusion)
        for prediction, count in enumerate(row)
        if label != prediction and count
    ]
    return sorted(all_mistakes, key=lambda mistake: -mistake.count)[:most]


def accuracy_interval(confusion: Sequence[Sequence[int]]) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the accuracy, given the number of test samples; None without samples.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    total = sum(map(sum, confusion))
    if not total:
        return None
    share = sum(row[k] for k, row in enumerate(confusion)) / total
    z = 1.959964
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return centre - half, centre + half


def mistakes_page(classes: Sequence[str], confusion: Sequence[Sequence[int]], most: int = 50) -> str:
    """Return the most frequent mistakes as a Markdown table, for a page that cannot show a matrix of many classes.

    Args:
        classes: Names of the K classes.
        confusion: (K, K) counts, row = label; empty if nothing was measured.
        most: Greatest number of rows.
    """
    rows = mistakes(classes, confusion, most)
    if not rows:
        return "No mistakes: either every test sample was right, or there is none.\n"
    lines = [
        f"The {len(rows)} most frequent mistakes of {len(classes)} classes on the test split.",
        "",
        "| label | taken for | samples | share of the label |",
        "|---|---|---:|---:|",
    ]
    for mistake in rows:
        names = (name.replace("|", "\\|") for name in (mistake.label, mistake.prediction))
        lines.append(f"| {' | '.join(names)} | {mistake.count} | {mistake.share:.1%} |")
    return "\n".join(lines) + "\n"
