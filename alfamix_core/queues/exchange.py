"""Export questions and import answers as CSV, so that any tool can label.

Out:  sample_id, uri, thumbnail, suggestion, round, label (empty: to be filled in)
In:   sample_id, and label (a class; or empty with kind skip or cannot_label); optional kind, annotator, time, round
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """Read answers; rows without an answer are left out, and equal rows count once.

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
        InputError: An unknown column, sample, class or round, a row that is no answer, or two rows that contradict each
            other; the message has their lines.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} must be UTF-8 text: {error.reason} at byte {error.start}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = _header(reader, where)
    # two annotators who agree on everything deliver equal files
    digest = _digest(annotator.encode() + b"\0" + data)
    names = frozenset(classes)
    asked = {question.sample_id: question.round for question in ledger.open_queries()}
    rows: list[_Row] = []
    try:
        for fields in reader:
            location = f"{where} line {reader.line_num}"
            if None in fields or None in fields.values():
                raise InputError(f"{location} has another number of fields than the header's {len(header)}")
            event = _event(fields, location, asked, annotator, now, f"{digest}-{reader.line_num:09}")
            if event is not None:
                if event.label is not None:
                    check_class(event.label, names, location)
                rows.append(_Row(reader.line_num, event, bool(fields.get("time", "").strip())))
    except csv.Error as error:
        raise InputError(f"{where} line {reader.reader.line_num}: {error}") from None
    rows = _consistent(rows, where)
    rounds = ledger.asking_rounds() | {0}
    known = ledger.known([row.event.sample_id for row in rows])
    for row in rows:
        if row.event.sample_id not in known:
            raise InputError(f'{where} line {row.line}: sample "{row.event.sample_id}" is in no drop of the project')
        if row.event.round not in rounds:
            raise InputError(f"{where} line {row.line}: round {row.event.round} has asked no question")
    # a row that says when it was answered stays where it is in time
    if later := ledger.superseded([row.event for row in rows if not row.is_dated]):
        again = _digest(" ".join([digest, *later]).encode())
        rows = [row if row.is_dated else row.renamed(f"{again}-{row.line:09}") for row in rows]
        digest = again
    return f"import-{digest}", [row.event for row in rows]


@dataclass(frozen=True)
class _Row:
    """An answer, the line that gives it, and whether that line says when."""

    line: int
    event: LabelEvent
    is_dated: bool

    @property
    def answer(self) -> str:
        return self.event.label or self.event.kind

    def renamed(self, event_id: str) -> "_Row":
        return replace(self, event=self.event.model_copy(update={"event_id": event_id}))


def _header(reader: "csv.DictReader[str]", where: str) -> list[str]:
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
    return header


def _consistent(rows: Iterable[_Row], where: str) -> list[_Row]:
    """Return the rows without repetitions. An annotator may answer about a sample again, if each row says when.

    Raises:
        InputError: Two rows contradict each other.
    """
    by_time: dict[tuple[str, str], dict[datetime | None, _Row]] = {}
    kept = []
    for row in rows:
        earlier = by_time.setdefault((row.event.sample_id, row.event.annotator), {})
        time = row.event.time if row.is_dated else None
        if time in earlier:
            rivals = [earlier[time]]
        elif time is None:
            rivals = list(earlier.values())
        else:
            rivals = [earlier[None]] if None in earlier else []
        for rival in rivals:
            if (rival.event.kind, rival.event.label) != (row.event.kind, row.event.label):
                raise InputError(
                    f'{where} lines {rival.line} and {row.line}: annotator "{row.event.annotator}" answers '
                    f'"{rival.answer}" and "{row.answer}" about sample "{row.event.sample_id}"; keep one row, or give '
                    f"each its own time"
                )
        if time not in earlier:
            earlier[time] = row
            kept.append(row)
    return kept


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
