"""`alfamix queue`, `labels` and `answer`: the questions that wait for people, and their answers."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import JsonOption, ProjectArgument, open_project, read_file
from pipelines.cli.printing import Shown, columns, out

if TYPE_CHECKING:
    from alfamix_core.records.query import Question
    from alfamix_core.storage import Store


def answer(
    project: ProjectArgument,
    oracle: Annotated[
        Path, typer.Option(metavar="FILE", help="CSV file of the known answers, with columns sample_id and label.")
    ],
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of wrong answers.")] = 0.0,
    skip: Annotated[float, typer.Option(min=0, max=1, help="Share of questions that are skipped.")] = 0.0,
) -> int:
    """Answer the open questions from a file of known answers, in a simulation."""
    from alfamix_core.project import rounds
    from alfamix_core.project.ledger.ledger import open_ledger
    from alfamix_core.queues import builtin
    from alfamix_core.queues import oracle as oracles

    store = open_project(project)
    settings = rounds.read_settings(store)
    truth = oracles.read_truth(read_file(oracle), str(oracle), settings.classes)
    with open_ledger(store, settings, datetime.now(UTC)) as ledger:
        questions = ledger.open_queries()
    events = oracles.answer(questions, truth, settings.classes, seed=settings.seed, noise=noise, skip=skip)
    if events:
        builtin.add_answers(store, oracles.batch_name(events), events)
    out.print(f"answered {len(events)} of {len(questions)} open questions")
    return 0


def export_questions(
    project: ProjectArgument, to: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file to write.")]
) -> int:
    """Write the open questions as CSV, with an empty column "label" to be filled in."""
    from alfamix_core.queues.exchange import questions_csv

    store = open_project(project)
    questions = _open_questions(store)
    text = questions_csv(questions, store.uri + "/")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from None
    out.print(f"wrote {len(questions)} open questions to {to}")
    return 0


def list_questions(project: ProjectArgument, as_json: JsonOption = False) -> Shown:
    """Show the open questions."""
    questions = _open_questions(open_project(project))
    table = columns("", round=True, rank=True, sample=False, suggestion=False, uri=False)
    for question in questions:
        table.add_row(str(question.round), str(question.rank), question.sample_id, question.suggestion, question.uri)
    return Shown(questions, [table])


def _open_questions(store: "Store") -> "list[Question]":
    from alfamix_core.project import rounds
    from alfamix_core.project.ledger.ledger import open_ledger

    with open_ledger(store, rounds.read_settings(store), datetime.now(UTC)) as ledger:
        return ledger.open_queries()


def import_labels(
    project: ProjectArgument,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV file with columns sample_id and label; kind, annotator and time are optional."
        ),
    ],
    annotator: Annotated[str, typer.Option(help="Annotator of the rows that name none.")] = "import",
) -> int:
    """Read answers from CSV. Rows without an answer are left out; importing a file twice has no effect.

    Answers about withdrawn samples are skipped and counted.
    """
    from alfamix_core.project import layout, rounds
    from alfamix_core.project.ledger.ledger import open_ledger
    from alfamix_core.queues import builtin
    from alfamix_core.queues.exchange import answers_from_csv

    store = open_project(project)
    settings, now = rounds.read_settings(store), datetime.now(UTC)
    with open_ledger(store, settings, now) as ledger:
        batch, events = answers_from_csv(read_file(source), str(source), ledger, settings.classes, annotator, now)
        withdrawn = ledger.withdrawn()
    if store.entry(layout.labels(batch)) is not None:
        out.print(f"no effect: {source} is imported already")
        return 0
    answers = [event for event in events if event.sample_id not in withdrawn]
    if answers:
        builtin.add_answers(store, batch, answers)
    skipped = len(events) - len(answers)
    out.print(f"imported {len(answers)} answers{f', skipped {skipped} about withdrawn samples' if skipped else ''}")
    return 0
