"""The ledger's tables: their names and columns, spelt here alone.

    samples      one row per sample: the first accepted manifest line with its id
    events       one row per label event; equal events are one row
    questions    one row per question that a committed round asked
    quarantine   one row per sample that a committed round could not read
    corrections  one row per line of withdrawn/ and released/
    inbox        one row per reading of an inbox file or a committed round, and one per line that was set aside

``load`` is the version of the table that added a row. ``samples``, ``events``, ``questions`` and ``inbox`` are a
stable interface: columns may be added, but none changes its meaning (docs/query-your-project.md).
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa

BLOCK = 65_536  # rows held as Python objects at a time

_TEXT, _TIME = pa.string(), pa.timestamp("us", tz="UTC")
_MAYBE = ("label", "group")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in _MAYBE) for name, kind in columns.items()])


SAMPLES = _schema(
    sample_id=_TEXT, uri=_TEXT, label=_TEXT, split=_TEXT, group=_TEXT, key=_TEXT, line=pa.int64(), load=pa.int64()
)
EVENTS = _schema(
    event_id=_TEXT,
    sample_id=_TEXT,
    kind=_TEXT,
    label=_TEXT,
    annotator=_TEXT,
    round=pa.int32(),
    time=_TIME,
    loaded_at=_TIME,
    key=_TEXT,
    line=pa.int64(),
    load=pa.int64(),
)
QUESTIONS = _schema(
    sample_id=_TEXT,
    uri=_TEXT,
    round=pa.int32(),
    rank=pa.int32(),
    suggestion=_TEXT,
    audit=pa.bool_(),
    thumbnail=_TEXT,
    asked_at=_TIME,
    load=pa.int64(),
)
QUARANTINE = _schema(sample_id=_TEXT, uri=_TEXT, reason=_TEXT, round=pa.int32(), load=pa.int64())
CORRECTIONS = _schema(
    kind=_TEXT,  # withdrawn, or released
    sample_id=_TEXT,
    round=pa.int32(),  # released: the last round whose quarantine is over; withdrawn: 0
    reason=_TEXT,
    time=_TIME,
    key=_TEXT,
    line=pa.int64(),
    load=pa.int64(),
)
INBOX = _schema(
    key=_TEXT,
    line=pa.int64(),  # 0: the row is about the whole file
    state=_TEXT,  # loaded, or set aside
    reason=_TEXT,  # why it was set aside; empty where loaded
    tag=_TEXT,  # the store's mark of the file's content when it was read
    sha256=_TEXT,
    size=pa.int64(),
    rows=pa.int64(),  # lines that brought something new
    repeated=pa.int64(),  # lines that repeat another line
    vanished=pa.int64(),  # rows that the file had brought before and no longer holds
    basis=_TEXT,  # digest of the settings under which it was read
    loaded_at=_TIME,
    load=pa.int64(),
)

SCHEMAS = {
    "samples": SAMPLES,
    "events": EVENTS,
    "questions": QUESTIONS,
    "quarantine": QUARANTINE,
    "corrections": CORRECTIONS,
    "inbox": INBOX,
}
"""In the order in which a load writes them: ``inbox`` last, so that a file counts as read only when its rows are."""


def batches(schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> Iterator[pa.RecordBatch]:
    """Yield rows as columns, block by block."""
    block: list[tuple[object, ...]] = []

    def batch() -> pa.RecordBatch:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*block, strict=True), schema, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield batch()
            block.clear()
    if block:
        yield batch()
