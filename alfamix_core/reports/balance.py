"""The number of labels of each class, and of queries that the model predicts to be of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassBalance:
    """The balance of one class.

    Attributes:
        name: Name of the class.
        labels: Number of labels so far.
        queries: Number of queries whose suggestion is the class.
        labels_share: ``labels`` in percent of the class with most labels.
        queries_share: ``queries`` in percent of the class with most queries.
    """

    name: str
    labels: int
    queries: int
    labels_share: float
    queries_share: float


def class_balance(
    classes: Sequence[str], label_counts: Mapping[str, int], suggestions: Iterable[str]
) -> list[ClassBalance]:
    """Return one row per class, in the order of ``classes``.

    Args:
        classes: Every class of the project.
        label_counts: Number of labels by class; a missing class has none.
        suggestions: Predicted class of each query; empty suggestions count in no row.
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
    """Return a sentence on the classes with most and fewest labels and their ratio; empty without labels."""
    if not any(counts.values()):
        return ""
    most = max(counts, key=lambda name: counts[name])
    least = min(counts, key=lambda name: counts[name])
    if not counts[least]:
        without = sum(not count for count in counts.values())
        return f"{without} of {len(counts)} classes have no label; most: {most} ({counts[most]:,})."
    if counts[most] == counts[least]:
        return f"{counts[most]:,} {'label' if counts[most] == 1 else 'labels'} in each class."
    ratio = counts[most] / counts[least]
    return f"Most: {most} ({counts[most]:,}), fewest: {least} ({counts[least]:,}), a ratio of {ratio:.1f}."
