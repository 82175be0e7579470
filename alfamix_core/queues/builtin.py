"""The built-in queue: JSON Lines in the project, answered with any tool through CSV files.

A round's questions are an object that its record names. Nothing is deleted: whether a question was answered, expired or
was cancelled follows from the label events and the clock (``project.ledger``).
"""

from collections.abc import Iterable

from alfamix_core.project import layout
from alfamix_core.records.labels import LabelEvent
from alfamix_core.storage import Store


def add_answers(store: Store, batch: str, events: Iterable[LabelEvent]) -> None:
    """Add a batch of label events, once; adding the same again changes nothing.

    Raises:
        ObjectExistsError: There is a batch of that name with other events.
    """
    store.create_same(layout.labels(batch), b"".join(event.json_line() for event in events))
