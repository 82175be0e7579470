"""Load the news of the inbox and of committed rounds: read files as a whole, keep the rows that no table has.

``pending`` computes the rows of a load and writes nothing to the project, so that readers see files that are not loaded
yet. ``commit`` appends them, ``inbox`` last. Repeating either changes nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, MissingObjectError, ObjectChangedError
from alfamix_core.project import layout, objects, rounds
from alfamix_core.project.inbox.listing import InboxFile, list_inbox, manifests
from alfamix_core.project.inbox.reading import ROWS, Reading, read
from alfamix_core.project.inbox.samples import OTHER_URI
from alfamix_core.project.ledger.queries import register_rows
from alfamix_core.project.ledger.tables import Tables, append, create_missing, explained
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import ObjectName, Round, number_of
from alfamix_core.records.stage import Quarantined
from alfamix_core.records.tables import BLOCK, SCHEMAS
from alfamix_core.storage import Store

LOADED, SET_ASIDE = "loaded", "set aside"

_OLDER_ROUNDS = (
    "ledger/ holds its questions: put back rounds/ and ledger/ of one moment, or delete ledger/, which the next round "
    "loads again"
)
_READERS = 8  # files fetched at a time
_SOURCES = ("samples", "events", "corrections", "questions", "quarantine")
_FROM_ROUNDS: "dict[ObjectName, type[Question] | type[Quarantined]]" = {
    "questions": Question,
    "quarantine": Quarantined,
}


# one row of inbox for each file and round that was read, and one for each line that was set aside
_OUTCOMES = """
create temp table inbox_new as
with other as materialized (select * from other_uri where {samples}),
aside as (select key, count(*) as aside from other group by key),
gone as (select key, vanished from vanished where {changed}),
fresh as (
    select key, count(*) as fresh
    from (select key from samples_new union all select key from events_new union all select key from corrections_new)
    group by key
),
outcomes as (
    select key, line, 'set aside' as state,
        format(?, key, line, sample_id, known_uri || ' of ' || known_key, uri) as reason,
        tag, sha256, size, 0 as rows, 0 as repeated, 0 as vanished
    from other join files_read using (key)
    union all
    select key, 0, state, reason, tag, sha256, size, coalesce(rows, fresh, 0),
        greatest(0, lines - coalesce(rows, fresh, 0) - coalesce(aside, 0)),
        coalesce(if(state = 'set aside', files_read.vanished, gone.vanished), 0)
    from files_read left join fresh using (key) left join aside using (key) left join gone using (key)
)
select outcomes.*, ? as basis, loaded_at, ?::bigint as load from outcomes cross join loading
"""
_FILES_READ = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("key", "state", "reason", "tag", "sha256")),
        *(pa.field(name, pa.int64()) for name in ("size", "lines", "rows", "vanished")),
    ]
)


@dataclass(frozen=True)
class KnownFile:
    """The last reading of a file, by the table ``inbox``."""

    key: str
    state: str
    reason: str
    tag: str
    sha256: str
    rows: int
    repeated: int
    vanished: int
    basis: str
    loaded_at: datetime


@dataclass(frozen=True)
class Load:
    """A load; its rows are in the database as ``samples_new`` and so on.

    Attributes:
        rows: Number of new rows by table; tables without any are missing.
        files: ``loaded`` or ``set aside`` by key, for inbox files that were read and for the records of committed
            rounds.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unread:
    """The files and rounds that no load has read.

    Attributes:
        files: Inbox files that are new, changed, or were set aside under other settings.
        rounds: Committed and abandoned rounds that are not in the ledger.
        known: Every file that a load has read, by key.
        gone: Keys of files that a load has read and that are gone.
        odd: Name and reason of what is in the inbox and is never read.
    """

    files: tuple[InboxFile, ...]
    rounds: tuple[Round, ...]
    known: Mapping[str, KnownFile]
    gone: tuple[str, ...]
    odd: tuple[tuple[str, str], ...]

    @property
    def deleted(self) -> list[str]:
        """Keys of deleted files that had rows."""
        return [key for key in self.gone if self.known[key].rows]

    def __bool__(self) -> bool:
        return bool(self.files or self.rounds)


def look(store: Store, project: Project, tables: Tables) -> Unread:
    """Compare listings with the table ``inbox``; opens no inbox file.

    Args:
        store: The project.
        project: Its settings.
        tables: At least ``inbox``, if it exists.
    """
    known = known_files(tables)
    listing = list_inbox(store)
    basis = basis_of(project)
    present = {file.key for file in listing.files}
    return Unread(
        files=tuple(file for file in listing.files if _is_news(file, known.get(file.key), basis)),
        rounds=tuple(_rounds(store, known)),
        known=known,
        gone=tuple(sorted(key for key in known if key not in present and not key.startswith(layout.ROUNDS))),
        odd=listing.odd,
    )


def look_at_manifests(store: Store, project: Project, tables: Tables, most_bytes: int) -> Unread:
    """Return the manifests that no load has read, the smallest first, until their sizes exceed a limit in sum."""
    known, basis, files = known_files(tables), basis_of(project), []
    for file in sorted(manifests(store), key=lambda file: (file.size, file.key.encode())):
        if _is_news(file, known.get(file.key), basis):
            most_bytes -= file.size
            if most_bytes < 0:
                break
            files.append(file)
    return Unread(tuple(sorted(files, key=lambda file: file.key.encode())), (), known, (), ())


def known_files(tables: Tables) -> dict[str, KnownFile]:
    """Return the last reading of each inbox file, by key."""
    columns = [*KnownFile.__dataclass_fields__, "line", "load"]
    with explained("inbox"):
        rows = tables.dataset("inbox").to_table(columns=columns).to_pylist()
    latest: dict[str, KnownFile] = {}
    for row in sorted(rows, key=lambda row: row["load"]):
        if row.pop("line") == 0:
            del row["load"]
            latest[row["key"]] = KnownFile(**row)
    return latest


def basis_of(project: Project) -> str:
    """Return a digest of the settings that decide whether a file can be used."""
    basis = json.dumps([sorted(project.classes), sorted(project.data_prefixes)], ensure_ascii=False)
    return hashlib.sha256(basis.encode()).hexdigest()[:16]


def pending(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    project: Project,
    tables: Tables,
    unread: Unread,
    now: datetime,
    folder: Path,
) -> Load:
    """Read the unread, and compute the rows that the tables do not have; write nothing to the project.

    Args:
        con: Database with the tables as ``samples_table`` and so on; receives ``samples_new`` and so on.
        store: The project.
        project: Its settings.
        tables: All existing tables, at their newest versions.
        unread: Files and rounds to read.
        now: Moment of the load, UTC.
        folder: Folder for temporary files.

    Raises:
        InputError: A table is not what ingest wrote, or a committed round's object is not what its record names.
    """
    with _Incoming(folder) as incoming:
        for file, reading in _read_all(store, project, unread.files, folder):
            incoming.add(file, reading, unread.known.get(file.key))
        for record in unread.rounds:
            incoming.add_round(store, record)
    with explained("inbox"):
        for name in _SOURCES:
            register_rows(con, f"{name}_read", name, incoming.paths[name])
        con.execute("create temp table loading as select ?::timestamptz as loaded_at", [now])
        changed = [file["key"] for file in incoming.files if file["key"] in unread.known]
        con.execute("create temp table changed as select unnest(?::varchar[]) as key", [changed])
        con.execute(files(__package__).joinpath("load.sql").read_text(encoding="utf-8"))
        for name in _SOURCES:
            con.register(f"{name}_none", SCHEMAS[name].empty_table())
            columns = ", ".join(f'"{column.name}"' for column in SCHEMAS[name] if column.name != "load")
            # a table without news is not read at all
            fresh = f"{name}_fresh" if incoming.paths[name] else f"{name}_none"
            version = _next_version(tables, name)
            con.execute(f"create temp table {name}_new as select {columns}, {version}::bigint as load from {fresh}")
        con.register("files_read", pa.Table.from_pylist(incoming.files, schema=_FILES_READ))
        some = {"samples": str(bool(incoming.paths["samples"])), "changed": str(bool(changed))}
        basis, version = basis_of(project), _next_version(tables, "inbox")
        con.execute(_OUTCOMES.format(**some), [OTHER_URI, basis, version])
        counts = {name: con.execute(f"select count(*) from {name}_new").fetchall()[0][0] for name in SCHEMAS}
    states = {str(file["key"]): str(file["state"]) for file in incoming.files}
    return Load({name: count for name, count in counts.items() if count}, states)


def commit(con: duckdb.DuckDBPyConnection, store: Store, tables: Tables, load: Load) -> Tables:
    """Append a load to the tables; the caller holds the project's lock.

    Returns:
        Handles of all tables, at their new versions where rows were added.

    Raises:
        ObjectChangedError: Another load came first; look again.
    """
    tables = create_missing(store, tables)
    for name, schema in SCHEMAS.items():
        if name in load.rows:
            versions = {other: version for other, version in tables.versions.items() if other != "inbox"}
            columns = ", ".join(f'"{column.name}"' for column in schema)
            with explained(name):
                reader = con.sql(f"select {columns} from {name}_new").to_arrow_reader(BLOCK)
                rows = pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in reader))
                append(tables, name, rows, versions if name == "inbox" else None)
    return tables


def _next_version(tables: Tables, name: str) -> int:
    handle = tables.handles.get(name)
    return 1 if handle is None else handle.version() + 1


def _is_news(file: InboxFile, known: KnownFile | None, basis: str) -> bool:
    if known is None or known.tag != file.tag:
        return True
    return known.state == SET_ASIDE and known.basis != basis


def _rounds(store: Store, known: Mapping[str, KnownFile]) -> Iterator[Round]:
    """Yield the rounds that have ended, asked or abandoned, and are not in the ledger.

    Raises:
        InputError: The rounds are older than the ledger, so that questions would be open which no round asks.
    """
    present = rounds.numbers(store)
    loaded = sorted(key for key in known if key.startswith(layout.ROUNDS))
    gone = sorted(set(loaded) - {layout.round_file(number) for number in present})
    if gone:
        raise InputError(f"{gone[0]} is gone, and {_OLDER_ROUNDS}")
    if loaded:
        record = rounds.read(store, number_of(loaded[-1].split("/")[1])).value
        if record.is_unfinished or record.digest != known[loaded[-1]].sha256:
            raise InputError(f"{loaded[-1]} is {record.state} with digest {record.digest[:12]}, and {_OLDER_ROUNDS}")
    for number in present:
        if layout.round_file(number) not in known:
            record = rounds.read(store, number).value
            if record.state in ("exported", "closed", "abandoned"):
                yield record


def _read_all(
    store: Store, project: Project, listed: Sequence[InboxFile], folder: Path
) -> Iterator[tuple[InboxFile, Reading]]:
    """Yield each file with its reading; a file that is replaced at this moment is left to the next load."""

    def one(numbered: tuple[int, InboxFile]) -> Reading | None:
        number, file = numbered
        own = folder / f"{number:06d}"
        own.mkdir(parents=True)
        try:
            return read(store, project, file, own)
        except (MissingObjectError, ObjectChangedError):
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(listed), _READERS * 8):
            block = listed[start : start + _READERS * 8]
            for file, reading in zip(block, pool.map(one, enumerate(block, start=start)), strict=True):
                if reading is not None:
                    yield file, reading


class _Incoming:
    """The rows of all files that were read, as parquet files: small files share one, a large one keeps its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "incoming"
        self._folder.mkdir()
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._stack = ExitStack()
        self.paths: dict[str, list[Path]] = {name: [] for name in _SOURCES}
        self.files: list[dict[str, str | int | None]] = []

    def __enter__(self) -> "_Incoming":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, file: InboxFile, reading: Reading, before: KnownFile | None) -> None:
        """Add the rows of a file, or the reason why it is set aside."""
        row = {"key": file.key, "reason": reading.reason, "tag": file.tag, "sha256": reading.sha256}
        if reading.path is None:
            vanished = before.vanished if before is not None else 0
            self.files.append({**row, "state": SET_ASIDE, "size": reading.size, "lines": 0, "vanished": vanished})
            return
        with pq.ParquetFile(reading.path) as rows:
            lines = rows.metadata.num_rows
            self.files.append({**row, "state": LOADED, "size": reading.size, "lines": lines})
            if lines >= BLOCK:
                self.paths[reading.table].append(reading.path)
                return
            for batch in rows.iter_batches():
                self._writer(reading.table, ROWS[reading.table]).write_batch(batch)
        reading.path.unlink()

    def add_round(self, store: Store, record: Round) -> None:
        """Add a round's questions, and the samples that it could not read."""
        key, count = layout.round_file(record.number), 0
        for name, kind in _FROM_ROUNDS.items():
            if name in record.objects:
                lines = objects.read(store, record, name).splitlines()
                rows = [{**line.model_dump(), "round": record.number} for _, line in read_lines(kind, lines, key)]
                schema = pa.schema([column for column in SCHEMAS[name] if column.name != "load"])
                self._writer(name, schema).write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
        row = {"key": key, "reason": "", "tag": record.state, "sha256": record.digest, "state": LOADED}
        self.files.append({**row, "size": 0, "lines": count, "rows": count})

    def _writer(self, table: str, schema: pa.Schema) -> pq.ParquetWriter:
        if table not in self._writers:
            path = self._folder / f"{table}.parquet"
            self.paths[table].append(path)
            self._writers[table] = self._stack.enter_context(pq.ParquetWriter(path, schema))
        return self._writers[table]
