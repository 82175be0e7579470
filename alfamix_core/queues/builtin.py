"""The built-in queue: JSON Lines in the project, answered with any tool through CSV files.

A round's questions are one file, written once. Nothing is deleted: that a question was answered, expired or
cancelled follows from the label events and the clock (``project.ledger``).
"""

from collections.abc import Iterable, Sequence

from alfamix_core.project import layout
from alfamix_core.project.once import write_once
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.storage import Store


def submit(store: Store, number: int, questions: Sequence[Question]) -> list[Question]:
    """Ask a round's questions, once.

    Returns:
        The questions that stand: these, or those that an interrupted run of the same round has asked already.
    """
    key = layout.queue(number)
    data = write_once(store, key, b"".join(question.json_line() for question in questions))
    return [question for _, question in read_lines(Question, data.splitlines(), key)]


def add_answers(store: Store, batch: str, events: Iterable[LabelEvent]) -> None:
    """Add a batch of label events, once; adding the same again changes nothing.

    Raises:
        ObjectExistsError: there is a batch of that name with other events.
    """
    store.create_same(layout.labels(batch), b"".join(event.json_line() for event in events))
