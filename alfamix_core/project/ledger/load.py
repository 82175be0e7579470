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
from alfamix_core.project.ledger.queries import register_rows
from alfamix_core.project.ledger.tables import Tables, append, create_missing, explained
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.record import read_lines
from alfamix_core.records.round import ObjectName, Round, number_of
from alfamix_core.records.stage import Quarantined
from alfamix_core.records.tables import BLOCK, INBOX, SCHEMAS
from alfamix_core.storage import Store

LOADED, SET_ASIDE = "loaded", "set aside"

_OLDER_ROUNDS = (
    "ledger/ holds its questions: put back rounds/ and ledger/ of one moment, or delete ledger/, which the next round "
    "loads again"
)
_READERS = 8  # files fetched at a time
_FROM_FILES = ("samples", "events", "corrections")
_SOURCES = (*_FROM_FILES, "questions", "quarantine")
_FROM_ROUNDS: "dict[ObjectName, type[Question] | type[Quarantined]]" = {
    "questions": Question,
    "quarantine": Quarantined,
}


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
class News:
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


def look(store: Store, project: Project, tables: Tables) -> News:
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
    return News(
        files=tuple(file for file in listing.files if _is_news(file, known.get(file.key), basis)),
        rounds=tuple(_rounds(store, known)),
        known=known,
        gone=tuple(sorted(key for key in known if key not in present and not key.startswith(layout.ROUNDS))),
        odd=listing.odd,
    )


def look_at_manifests(store: Store, project: Project, tables: Tables, most_bytes: int) -> News:
    """Return the manifests that no load has read, the smallest first, until their sizes exceed a limit in sum."""
    known, basis, files = known_files(tables), basis_of(project), []
    for file in sorted(manifests(store), key=lambda file: (file.size, file.key.encode())):
        if _is_news(file, known.get(file.key), basis):
            most_bytes -= file.size
            if most_bytes < 0:
                break
            files.append(file)
    return News(tuple(sorted(files, key=lambda file: file.key.encode())), (), known, (), ())


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
    news: News,
    now: datetime,
    folder: Path,
) -> Load:
    """Read the news, and compute the rows that the tables do not have; write nothing to the project.

    Args:
        con: Database with the tables as ``samples_table`` and so on; receives ``samples_new`` and so on.
        store: The project.
        project: Its settings.
        tables: All existing tables, at their newest versions.
        news: Files and rounds to read.
        now: Moment of the load, UTC.
        folder: Folder for temporary files.

    Raises:
        InputError: A table is not what ingest wrote, or a committed round's object is not what its record names.
    """
    with _Incoming(folder) as incoming:
        for file, reading in _read_all(store, project, news.files, folder):
            incoming.add(file, reading)
        for record in news.rounds:
            incoming.add_round(store, record)
    with explained("inbox"):
        for name in _SOURCES:
            register_rows(con, f"{name}_read", name, incoming.paths[name])
        con.execute("create temp table loading as select ?::timestamptz as loaded_at", [now])
        changed = [key for key in incoming.readings if key in news.known]
        con.execute("create temp table changed as select unnest(?::varchar[]) as key", [changed])
        con.execute(files(__package__).joinpath("load.sql").read_text(encoding="utf-8"))
        for name in _SOURCES:
            con.register(f"{name}_none", SCHEMAS[name].empty_table())
            columns = ", ".join(f'"{column.name}"' for column in SCHEMAS[name] if column.name != "load")
            # a table without news is not read at all
            fresh = f"{name}_fresh" if incoming.paths[name] else f"{name}_none"
            version = _next_version(tables, name)
            con.execute(f"create temp table {name}_new as select {columns}, {version}::bigint as load from {fresh}")
        outcome = _Outcome.of(con, incoming, news.known, basis_of(project), now)
        inbox = outcome.table(_next_version(tables, "inbox"))
        con.register("inbox_rows", inbox)
        con.execute("create temp table inbox_new as select * from inbox_rows")
        counts = {name: con.execute(f"select count(*) from {name}_new").fetchall()[0][0] for name in SCHEMAS}
    return Load({name: count for name, count in counts.items() if count}, outcome.files)


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
        InputError: the rounds are older than the ledger, so that questions would be open which no round asks.
    """
    present = rounds.numbers(store)
    loaded = sorted(key for key in known if key.startswith(layout.ROUNDS))
    gone = sorted(set(loaded) - {layout.round_file(number) for number in present})
    if gone:
        raise InputError(f"{gone[0]} is gone, and {_OLDER_ROUNDS}")
    if loaded:
        record, _ = rounds.read(store, number_of(loaded[-1].split("/")[1]))
        if record.is_unfinished or record.digest != known[loaded[-1]].sha256:
            raise InputError(f"{loaded[-1]} is {record.state} with digest {record.digest[:12]}, and {_OLDER_ROUNDS}")
    for number in present:
        if layout.round_file(number) not in known:
            record, _ = rounds.read(store, number)
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
        self.readings: dict[str, tuple[InboxFile, Reading]] = {}
        self.lines: dict[str, int] = {}
        self.rounds: dict[str, Round] = {}

    def __enter__(self) -> "_Incoming":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, file: InboxFile, reading: Reading) -> None:
        """Add the rows of a file, or the reason why it is set aside."""
        self.readings[file.key] = (file, reading)
        if reading.path is not None:
            with pq.ParquetFile(reading.path) as rows:
                self.lines[file.key] = rows.metadata.num_rows
                if rows.metadata.num_rows >= BLOCK:
                    self.paths[reading.table].append(reading.path)
                    return
                for batch in rows.iter_batches():
                    self._writer(reading.table, ROWS[reading.table]).write_batch(batch)
            reading.path.unlink()

    def add_round(self, store: Store, record: Round) -> None:
        """Add a round's questions, and the samples that it could not read."""
        key = layout.round_file(record.number)
        self.rounds[key] = record
        self.lines[key] = 0
        for name, kind in _FROM_ROUNDS.items():
            if name in record.objects:
                lines = objects.read(store, record, name).splitlines()
                rows = [{**line.model_dump(), "round": record.number} for _, line in read_lines(kind, lines, key)]
                schema = pa.schema([column for column in SCHEMAS[name] if column.name != "load"])
                self._writer(name, schema).write_table(pa.Table.from_pylist(rows, schema=schema))
                self.lines[key] += len(rows)

    def _writer(self, table: str, schema: pa.Schema) -> pq.ParquetWriter:
        if table not in self._writers:
            path = self._folder / f"{table}.parquet"
            self.paths[table].append(path)
            self._writers[table] = self._stack.enter_context(pq.ParquetWriter(path, schema))
        return self._writers[table]


@dataclass(frozen=True)
class _Outcome:
    """The outcome for each file, and for each line that was set aside: the rows of ``inbox``."""

    rows: list[dict[str, object]]
    files: dict[str, str]

    @staticmethod
    def of(
        con: duckdb.DuckDBPyConnection, incoming: _Incoming, known: Mapping[str, KnownFile], basis: str, now: datetime
    ) -> "_Outcome":
        """Count the rows of a load, file by file."""
        new: dict[str, int] = {}
        for name in _FROM_FILES:
            new |= dict(con.execute(f"select key, count(*) from {name}_new group by key").fetchall())
        reread = any(key in known for key in incoming.readings)
        vanished = dict(con.execute("select key, vanished from vanished").fetchall()) if reread else {}
        aside = (
            con.execute("select * from other_uri order by key, line").fetchall() if incoming.paths["samples"] else []
        )
        by_file: dict[str, int] = {}
        rows: list[dict[str, object]] = []
        shared = {"basis": basis, "loaded_at": now}
        empty = {"rows": 0, "repeated": 0, "vanished": 0}
        for key, line, sample_id, uri, known_uri, known_key in aside:
            by_file[key] = by_file.get(key, 0) + 1
            file, reading = incoming.readings[key]
            reason = (
                f'{key} line {line}: id "{sample_id}" is already the sample {known_uri} of {known_key}; it cannot be '
                f"{uri} as well"
            )
            mark = {"tag": file.tag, "sha256": reading.sha256, "size": reading.size}
            rows.append({"key": key, "line": line, "state": SET_ASIDE, "reason": reason, **mark, **empty, **shared})
        states: dict[str, str] = {}
        for key, (file, reading) in incoming.readings.items():
            states[key] = SET_ASIDE if reading.path is None else LOADED
            before = known.get(key)
            lines = incoming.lines.get(key, 0)
            kept = before.vanished if before is not None and reading.path is None else 0
            counts = {
                "rows": new.get(key, 0),
                "repeated": max(0, lines - new.get(key, 0) - by_file.get(key, 0)),
                "vanished": vanished.get(key, 0) if reading.path is not None else kept,
            }
            mark = {"tag": file.tag, "sha256": reading.sha256, "size": reading.size, "reason": reading.reason}
            rows.append({"key": key, "line": 0, "state": states[key], **mark, **counts, **shared})
        for key, record in incoming.rounds.items():
            states[key] = LOADED
            mark = {"tag": record.state, "sha256": record.digest, "size": 0, "reason": ""}
            counts = {**empty, "rows": incoming.lines[key]}
            rows.append({"key": key, "line": 0, "state": LOADED, **mark, **counts, **shared})
        return _Outcome(rows, states)

    def table(self, load: int) -> pa.Table:
        """Return the rows of ``inbox``."""
        return pa.Table.from_pylist([{**row, "load": load} for row in self.rows], schema=INBOX)
