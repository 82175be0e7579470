"""How many labels each class has, and how many of the queries look like it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassBalance:
    """One class: labels so far and queries by suggestion, each also in percent of the largest class."""

    name: str
    labels: int
    queries: int
    labels_share: float
    queries_share: float


def class_balance(
    classes: Sequence[str], label_counts: Mapping[str, int], suggestions: Iterable[str]
) -> list[ClassBalance]:
    """Return one row a class, in the order of ``classes``.

    Args:
        classes: every class of the project.
        label_counts: labels by class; a class that is missing has none.
        suggestions: the predicted class of each query; the empty ones belong to no row.
    """
    queries = Counter(suggestions)
    most_labels = max((label_counts.get(name, 0) for name in classes), default=0) or 1
    most_queries = max((queries[name] for name in classes), default=0) or 1
    return [
        ClassBalance(
            name=name,
            labels=label_counts.get(name, 0),
            queries=queries[name],
            labels_share=round(100 * label_counts.get(name, 0) / most_labels, 2),
            queries_share=round(100 * queries[name] / most_queries, 2),
        )
        for name in classes
    ]


def balance_in_words(counts: Mapping[str, int]) -> str:
    """Return which class has most and which least, and how far apart they are; empty without labels."""
    if not any(counts.values()):
        return ""
    most = max(counts, key=lambda name: counts[name])
    least = min(counts, key=lambda name: counts[name])
    if not counts[least]:
        without = sum(not count for count in counts.values())
        return f"{without} of {len(counts)} classes without a label; most: {most} ({counts[most]:,})."
    if counts[most] == counts[least]:
        return f"{counts[most]:,} {'label' if counts[most] == 1 else 'labels'} in each class."
    times = counts[most] / counts[least]
    return f"Most: {most} ({counts[most]:,}), least: {least} ({counts[least]:,}), {times:.1f} times apart."
