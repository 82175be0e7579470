"""The most frequent mistakes of a confusion matrix, and the confidence interval of its accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_ON_PAGE = 50  # greatest number of mistakes on their page


@dataclass(frozen=True)
class Mistake:
    """A label mistaken for another class: the number of times, and their share of the label's samples."""

    label: str
    prediction: str
    count: int
    share: float


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


def mistakes_page(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Return the most frequent mistakes as a Markdown table, for a page that cannot show a matrix of many classes.

    Args:
        classes: Names of the K classes.
        confusion: (K, K) counts, row = label; empty if nothing was measured.
    """
    rows = mistakes(classes, confusion, _ON_PAGE)
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
