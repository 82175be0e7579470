"""Export questions and import answers as CSV, so that any tool can label.

Out:  sample_id, uri, thumbnail, suggestion, round, label (empty: to be filled in)
In:   sample_id, and label (a class; or empty with kind skip or cannot_label); optional kind, annotator, time, round
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import ValidationError

from alfamix_core.errors import InputError
from alfamix_core.project.inbox.samples import check_class
from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.query import Question
from alfamix_core.records.record import explain

COLUMNS = ("sample_id", "uri", "thumbnail", "suggestion", "round", "label")
_KNOWN = {*COLUMNS, "kind", "annotator", "time"}


def questions_csv(questions: Iterable[Question], thumbnail_uri: str) -> str:
    """Return open questions as CSV, best first within a round.

    Args:
        questions: Questions to export.
        thumbnail_uri: URI of the folder to which thumbnail keys are relative, with its slash.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for question in sorted(questions, key=lambda question: (question.round, question.rank)):
        thumbnail = thumbnail_uri + question.thumbnail if question.thumbnail else ""
        writer.writerow((question.sample_id, question.uri, thumbnail, question.suggestion, question.round, ""))
    return out.getvalue()


def answers_from_csv(
    data: bytes, where: str, ledger: Ledger, classes: Sequence[str], annotator: str, now: datetime
) -> tuple[str, list[LabelEvent]]:
    """Read answers; rows without an answer are left out.

    Args:
        data: UTF-8 CSV with a header.
        where: Name of the file for the user.
        ledger: Ledger of the project, with its samples and open questions.
        classes: Classes that may be answered.
        annotator: Annotator of rows that name none.
        now: Time of rows that have none, UTC.

    Returns:
        The name of the batch and the events. The name is made of the file's content and the annotator, so that
        importing it again has no effect; unless another answer came in between, which the file then replaces.

    Raises:
        InputError: An unknown column, sample or class, or a row that is no answer; the message has its line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} must be UTF-8 text: {error.reason} at byte {error.start}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = list(reader.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{where} line 1: {error}") from None
    for needed in ("sample_id", "label"):
        if needed not in header:
            raise InputError(f'{where}: the column "{needed}" is missing; it has {", ".join(header) or "none"}')
    for column in header:
        if header.count(column) > 1:
            raise InputError(f'{where}: the column "{column}" is there twice')
        if column not in _KNOWN:
            raise InputError(f'{where}: unknown column "{column}"; known are {", ".join(sorted(_KNOWN))}')
    # two annotators who agree on everything deliver equal files
    digest = _digest(annotator.encode() + b"\0" + data)
    names = frozenset(classes)
    asked = {question.sample_id: question.round for question in ledger.open_queries()}
    events: list[tuple[str, LabelEvent]] = []
    try:
        for row in reader:
            location = f"{where} line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{location} has another number of fields than the header's {len(header)}")
            event = _event(row, location, asked, annotator, now, f"{digest}-{reader.line_num}")
            if event is not None:
                if event.label is not None:
                    check_class(event.label, names, location)
                events.append((location, event))
    except csv.Error as error:
        raise InputError(f"{where} line {reader.reader.line_num}: {error}") from None
    known = ledger.known([event.sample_id for _, event in events])
    for location, event in events:
        if event.sample_id not in known:
            raise InputError(f'{location}: sample "{event.sample_id}" is in no drop of the project')
    answers = [event for _, event in events]
    # a row that says when it was answered stays where it is in time
    if later := ledger.superseded([event for event in answers if event.time == now]):
        again = _digest(" ".join([digest, *later]).encode())
        ids = {event: event.event_id.replace(digest, again) for event in answers if event.time == now}
        answers = [event.model_copy(update={"event_id": ids.get(event, event.event_id)}) for event in answers]
        digest = again
    return f"import-{digest}", answers


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _event(
    row: dict[str, str], location: str, asked: Mapping[str, int], annotator: str, now: datetime, event_id: str
) -> LabelEvent | None:
    label = row["label"].strip() or None
    kind = row.get("kind", "").strip() or ("label" if label else "")
    if not kind:
        return None
    try:
        return LabelEvent.model_validate(
            {
                "event_id": event_id,
                "sample_id": row["sample_id"],
                "kind": kind,
                "label": label,
                "annotator": row.get("annotator", "").strip() or annotator,
                "round": row.get("round", "").strip() or asked.get(row["sample_id"], 0),
                "time": row.get("time", "").strip() or now,
            },
            strict=False,
        )
    except ValidationError as error:
        raise InputError(f"{location}: {explain(error)}") from None
