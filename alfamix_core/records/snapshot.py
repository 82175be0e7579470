"""The snapshot folder: a round's frozen world, as tables.

    round.json        the round's record, settings included
    project-uri.txt   the project's uri; samples are read from there and from data_prefixes, and from nowhere else
    pool.parquet      the samples that may be asked about: sample_id, uri, group, on_map, new
    labelled.parquet  the samples with a decided label: sample_id, uri, label (class index), split, group, round
    audit.parquet     the samples of the audit reserve that the round asks about: sample_id, uri
    stage.json

``on_map`` marks the 2,000 samples with the smallest SHA-256 of their id, which the report's map shows; ``new``
those of the drops since the previous round, by which drift is measured. A position is a
row number of pool.parquet; its rows are in order of sample_id. It never leaves the round.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfamix_core.records.project import Project
from alfamix_core.records.round import Round
from alfamix_core.records.tables import batches

ROUND_FILE = "round.json"
PROJECT_URI_FILE = "project-uri.txt"
POOL_FILE = "pool.parquet"
LABELLED_FILE = "labelled.parquet"
AUDIT_FILE = "audit.parquet"
_ROW_GROUP = 65_536

POOL = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("on_map", pa.bool_(), nullable=False),
        pa.field("new", pa.bool_(), nullable=False),
    ]
)
AUDIT = pa.schema([pa.field("sample_id", pa.string(), nullable=False), pa.field("uri", pa.string(), nullable=False)])
LABELLED = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("round", pa.int32(), nullable=False),
    ]
)


def write_table(path: Path, schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> int:
    """Write rows, in order, block by block; return their number."""
    return write_batches(path, schema, batches(schema, rows))


def write_batches(path: Path, schema: pa.Schema, blocks: Iterable[pa.RecordBatch]) -> int:
    """Write rows that come in batches; return their number. Equal rows give equal files."""
    count, waiting = 0, [schema.empty_table()]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in blocks:
            waiting.append(pa.Table.from_batches([batch]).cast(schema))
            count += batch.num_rows
            table = pa.concat_tables(waiting)
            whole = len(table) - len(table) % _ROW_GROUP
            if whole:
                writer.write_table(table.slice(0, whole), row_group_size=_ROW_GROUP)
            waiting = [table.slice(whole)]
        if waiting[0].num_rows or not count:
            writer.write_table(waiting[0])
    return count


def read_round(snapshot: Path) -> Round:
    """Return the round that the snapshot was made for."""
    return Round.parse((snapshot / ROUND_FILE).read_bytes(), f"snapshot {ROUND_FILE}")


def read_roots(snapshot: Path, settings: Project) -> tuple[str, ...]:
    """Return the uris of the folders that hold the samples' files: the project, and its data prefixes."""
    return (snapshot / PROJECT_URI_FILE).read_text("utf-8"), *settings.data_prefixes


def read_pool(snapshot: Path) -> pa.Table:
    """Return pool.parquet, memory-mapped; row i is position i."""
    return pq.read_table(snapshot / POOL_FILE, memory_map=True)


def read_audit(snapshot: Path) -> pa.Table:
    """Return audit.parquet."""
    return pq.read_table(snapshot / AUDIT_FILE)


def read_labelled(snapshot: Path, split: str | None = None) -> pa.Table:
    """Return labelled.parquet, of one split or of all, in order of sample_id."""
    table = pq.read_table(snapshot / LABELLED_FILE, memory_map=True)
    return table if split is None else table.filter(pc.equal(table["split"], split))


def take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Return rows of a table, in the given order; there may be none."""
    return table.take(pa.array(rows, pa.int64()))


def shard_range(rows: int, shards: int, shard: int) -> range:
    """Return the positions of one shard: contiguous, and of nearly equal size."""
    return range(rows * shard // shards, rows * (shard + 1) // shards)
