"""A segment of the ledger: drops, label batches, queues and lists of the project once more, as tables.

    ledger/<segment>/segment.json      what it covers, and the digests of its tables
    ledger/<segment>/samples.parquet   … events, questions, quarantined, released, withdrawn: those that have rows
    ledger/<segment>/ids.parquet       fingerprints of the samples' ids, to see without the samples which are known

A segment says nothing that the files it covers do not say; it is read in their place because a table is read in
hundredths of the time of JSON Lines. It is written once and never changed.
"""

from dataclasses import dataclass, fields
from typing import Literal

import pyarrow as pa
from pydantic import Field

from alfamix_core.records.record import Record

CARD_FILE = "segment.json"

_TEXT = pa.string()


def _schema(**columns: pa.DataType) -> pa.Schema:
    maybe = ("label", "group")
    return pa.schema([pa.field(name, kind, nullable=name in maybe) for name, kind in columns.items()])


SAMPLES = _schema(sample_id=_TEXT, uri=_TEXT, label=_TEXT, split=_TEXT, group=_TEXT, key=_TEXT, line=pa.int64())
EVENTS = _schema(
    event_id=_TEXT,
    sample_id=_TEXT,
    kind=_TEXT,
    label=_TEXT,
    annotator=_TEXT,
    round=pa.int64(),
    time=pa.int64(),  # microseconds since 1970
    key=_TEXT,
    line=pa.int64(),
)
QUESTIONS = _schema(sample_id=_TEXT, audit=pa.bool_(), asked_at=pa.int64(), json=_TEXT, key=_TEXT, line=pa.int64())
IDS = _schema(fingerprint=pa.uint32())
"""Row group by row group as the samples, ascending within each: the CRC-32 of the UTF-8 bytes of an id."""
MARKED = _schema(sample_id=_TEXT, round=pa.int64())


@dataclass(frozen=True)
class Tables:
    """What the files of a project say, a row a line; in any order.

    Attributes:
        samples: lines of manifests, uris absolute.
        events: label events.
        questions: lines of queues; ``json`` is the line.
        quarantined: samples that a round could not read.
        released: samples whose quarantine up to that round is over.
        withdrawn: samples that must not be used any more; round 0.
    """

    samples: pa.Table
    events: pa.Table
    questions: pa.Table
    quarantined: pa.Table
    released: pa.Table
    withdrawn: pa.Table

    @property
    def rows(self) -> int:
        """Lines of all files together."""
        return sum(getattr(self, each.name).num_rows for each in fields(self))


IDS_TABLE = "ids"
SCHEMAS = {
    "samples": SAMPLES,
    "events": EVENTS,
    "questions": QUESTIONS,
    "quarantined": MARKED,
    "released": MARKED,
    "withdrawn": MARKED,
}


def concatenate(parts: list[Tables]) -> Tables:
    """Return the rows of all parts, in their order."""
    return Tables(
        **{
            name: pa.concat_tables([schema.empty_table(), *(getattr(part, name) for part in parts)])
            for name, schema in SCHEMAS.items()
        }
    )


class Covered(Record):
    """A file that a segment stands for."""

    key: str = Field(description="below the project's uri")
    sha256: str = Field(description="of its bytes, hex")
    size: int = Field(ge=0, description="bytes")


class SegmentCard(Record):
    """The whole of segment.json."""

    format: Literal[1] = 1
    uri: str = Field(description="of the project when it was written; a copied project makes its segments anew")
    covers: tuple[Covered, ...]
    tables: dict[str, str] = Field(description="SHA-256 of each table's file, by name")
    rows: int = Field(ge=0, description="lines of all that it covers")
