"""The project's JSON Lines files as tables: one pass over each, its digest checked on the way."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.samples import Sample, check_class, read_samples
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import FrozenInput, number_of
from alfamix_core.records.segment import EVENTS, MARKED, QUESTIONS, SAMPLES, Tables
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import Store

BLOCK = 65_536  # rows that are Python objects at a time
_LAST = 2**31 - 1  # the greatest number of a round that a table holds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(time: datetime) -> int:
    """Return a moment as whole microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def read(store: Store, project: Project, items: Sequence[FrozenInput]) -> Tables:
    """Read files as they were frozen.

    Raises:
        InputError: a file is not what its format says, or is no longer what it was when it was frozen.
    """

    def rows(
        prefix: str, schema: pa.Schema, read_one: Callable[[FrozenInput], Iterator[tuple[object, ...]]]
    ) -> pa.Table:
        found = (row for item in items if (item.kind or item.key).startswith(prefix) for row in read_one(item))
        return table(schema, found)

    classes = frozenset(project.classes)

    def samples(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        folder_uri = store.uri_of(item.key).rsplit("/", 1)[0] + "/"
        lines = read_lines(ManifestLine, _lines(store, item), item.key)
        for number, sample in read_samples(lines, folder_uri, project.data_prefixes, classes, item.key):
            yield sample_row(sample, item.key, number)

    def events(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        for number, event in read_lines(LabelEvent, _lines(store, item), item.key):
            if event.label is not None:
                check_class(event.label, classes, f"{item.key} line {number}")
            yield (
                *(event.event_id, event.sample_id, event.kind, event.label, event.annotator, event.round),
                *(microseconds(event.time), item.key, number),
            )

    def questions(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        for number, question in read_lines(Question, _lines(store, item), item.key):
            text = question.model_dump_json()
            yield question.sample_id, question.audit, microseconds(question.asked_at), text, item.key, number

    def quarantined(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        number = round_of(item.key)
        for _, bad in read_lines(Quarantined, _lines(store, item), item.key):
            yield bad.sample_id, number

    def released(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        for _, line in read_lines(Released, _lines(store, item), item.key):
            yield line.sample_id, line.round

    def withdrawn(item: FrozenInput) -> Iterator[tuple[object, ...]]:
        for _, line in read_lines(Withdrawn, _lines(store, item), item.key):
            yield line.sample_id, 0

    return Tables(
        samples=rows(layout.DROPS, SAMPLES, samples),
        events=rows(layout.LABELS, EVENTS, events),
        questions=rows("questions", QUESTIONS, questions),
        quarantined=rows("quarantine", MARKED, quarantined),
        released=rows(layout.RELEASED, MARKED, released),
        withdrawn=rows(layout.WITHDRAWN, MARKED, withdrawn),
    )


def sample_row(sample: Sample, key: str, line: int) -> tuple[object, ...]:
    """Return a row of ``segment.SAMPLES``."""
    return sample.sample_id, sample.uri, sample.label, sample.split, sample.group, key, line


def round_of(key: str) -> int:
    """Return the round of an object such as ``rounds/000012/objects/<sha256>``."""
    return min(number_of(key.removeprefix(layout.ROUNDS).split("/", 1)[0]), _LAST)


def table(schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    """Return rows as a table, made block by block."""
    return pa.Table.from_batches(batches(schema, rows), schema=schema)


def batches(schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> Iterator[pa.RecordBatch]:
    """Yield rows as columns, some thousands at a time."""
    block: list[tuple[object, ...]] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield _batch(schema, block)
            block = []
    if block:
        yield _batch(schema, block)


def _batch(schema: pa.Schema, block: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = [pa.array(column, each.type) for column, each in zip(zip(*block, strict=True), schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def digest_of(store: Store, key: str) -> str:
    """Return the SHA-256 of an object, hex."""
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _lines(store: Store, item: FrozenInput) -> Iterator[bytes]:
    """Yield the lines of a frozen file, then check that it is what was frozen.

    What was read before the check is thrown away with the error, so nothing is decided on a changed file.
    """
    digest = hashlib.sha256()
    try:
        with store.open(item.key) as stream:
            for line in stream:
                digest.update(line)
                yield line
    except MissingObjectError:
        raise InputError(f"{item.key} was there when the round was planned and is gone; put it back") from None
    if digest.hexdigest() != item.sha256:
        raise InputError(f"{item.key} is not what it was when the round was planned; put it back")
