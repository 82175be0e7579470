"""The ledger's Delta Lake tables: opened at a version, appended to by one load after another.

Loads are serial: each appends under the transaction ``load`` with a handle that it opened before it read the tables, so
of two loads that overlap one is refused and starts over.
"""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from alfamix_core.errors import InputError, ObjectChangedError, StorageError, one_line
from alfamix_core.project import layout
from alfamix_core.records.tables import SCHEMAS
from alfamix_core.storage import Store

if TYPE_CHECKING:
    from deltalake import DeltaTable

KEPT = timedelta(days=60)
"""Minimum age at which a version of a table is removed."""

_LOAD = "load"  # transaction that makes loads serial
_CONFIGURATION = {
    # a round may be resumed after weeks, and reads the version that it froze
    "delta.enableExpiredLogCleanup": "false",
    "delta.deletedFileRetentionDuration": f"interval {KEPT.days} days",
}
_READING = ("Python exception", "reading the stream")  # in DuckDB's messages about an error of its source
_RECENT = 8  # commits of the table inbox read before all are
_LONGEST = 500  # length of a foreign message
_STREAM = re.compile(r"reading the stream registered as '(\w+?)(?:_table)?' failed: (.*?)\.? Detail: ")  # of DuckDB
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # in messages of the Delta Lake library
_CHANGED = "it is not what ingest wrote; `alfamix doctor --deep` compares it with the inbox"


@dataclass(frozen=True)
class Tables:
    """Handles of the tables that exist, by name, each at one version."""

    handles: "Mapping[str, DeltaTable]"

    @property
    def versions(self) -> dict[str, int]:
        """The version of each table that exists."""
        return {name: handle.version() for name, handle in self.handles.items()}

    @property
    def identity(self) -> str:
        """Identity of this ledger, which another made in its place lacks; empty before the first load."""
        handle = self.handles.get("inbox")
        return "" if handle is None else str(handle.metadata().id)

    def dataset(self, name: str) -> ds.Dataset:
        """Return a table's rows, which are read on demand; an empty one if there is no table."""
        handle = self.handles.get(name)
        if handle is None:
            return ds.dataset(SCHEMAS[name].empty_table())
        with explained(name):
            rows: ds.Dataset = handle.to_pyarrow_dataset(schema=SCHEMAS[name])
        return rows

    def covered(self) -> dict[str, int]:
        """Return the versions of all tables as of the last load, which ``inbox`` alone holds."""
        handle = self.handles.get("inbox")
        if handle is None:
            return {}
        with explained("inbox"):
            # compacting adds commits of its own, at most a few between two loads
            commits = (commit for most in (_RECENT, None) for commit in handle.history(most))
            for commit in commits:
                if _LOAD in commit:
                    versions: dict[str, int] = json.loads(commit[_LOAD])
                    return {**versions, "inbox": handle.version()}
        return {}


def open_tables(store: Store, versions: Mapping[str, int] | None = None, names: tuple[str, ...] = ()) -> Tables:
    """Open tables at the versions named, or as they are now.

    Args:
        store: The project.
        versions: Versions that a round froze; None for the newest, without tables that do not exist yet.
        names: Names of the tables; all by default.

    Raises:
        InputError: A version or a file of it is gone.
        StorageError: The store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    def one(name: str) -> "tuple[str, DeltaTable | None]":
        uri, options = store.table(layout.table(name))
        with explained(name):
            try:
                return name, DeltaTable(uri, version=versions[name] if versions else None, storage_options=options)
            except TableNotFoundError:
                if versions:
                    raise InputError(f"{layout.table(name)} is gone; put it back") from None
                return name, None

    wanted = [name for name in SCHEMAS if name in (versions or SCHEMAS) and name in (names or SCHEMAS)]
    # a load writes `inbox` last: read first, it names no version of another table that is not there yet
    first, others = [name for name in wanted if name == "inbox"], [name for name in wanted if name != "inbox"]
    with ThreadPoolExecutor(len(SCHEMAS)) as pool:
        opened = [*map(one, first), *pool.map(one, others)]
    tables = Tables({name: handle for name, handle in opened if handle is not None})
    if not versions and not names:
        for name, version in tables.covered().items():
            if tables.versions.get(name, -1) < version:
                raise InputError(
                    f"{layout.table(name)} is gone, or older than the last load; put it back, since its content "
                    "would be missing"
                )
    return tables


def create_missing(store: Store, tables: Tables) -> Tables:
    """Create the tables that do not exist yet; return handles of all.

    Raises:
        ObjectChangedError: Another load made one of them meanwhile, and wrote to it.
    """
    from deltalake import DeltaTable

    made = dict(tables.handles)
    for name, schema in SCHEMAS.items():
        if name not in made:
            uri, options = store.table(layout.table(name))
            if not options:
                Path(uri).mkdir(parents=True, exist_ok=True)
            with explained(name):
                made[name] = DeltaTable.create(
                    uri, schema=schema, mode="ignore", configuration=_CONFIGURATION, storage_options=options
                )
            if made[name].version():  # the rows to append were computed without its rows
                raise ObjectChangedError(f"{layout.table(name)} was made by another load at this moment")
    return Tables(made)


def append(tables: Tables, name: str, rows: pa.RecordBatchReader, metadata: Mapping[str, object] | None = None) -> None:
    """Append rows to a table; the handle then stands at the new version.

    Args:
        tables: Handles that were opened before the rows were computed.
        name: Name of the table.
        rows: Batches with the table's columns.
        metadata: JSON value to keep with the commit, under ``load``.

    Raises:
        ObjectChangedError: Another load wrote to the table since it was opened.
    """
    from deltalake import CommitProperties, Transaction, write_deltalake

    handle = tables.handles[name]
    kept: dict[str, Any] = {} if metadata is None else {_LOAD: json.dumps(metadata)}
    with explained(name):
        write_deltalake(
            handle,
            rows,
            mode="append",
            commit_properties=CommitProperties(
                custom_metadata=kept, app_transactions=[Transaction(_LOAD, handle.version() + 1)]
            ),
        )


def tidy(tables: Tables, oldest: timedelta) -> None:
    """Compact the tables' small files, and remove files that only older versions name.

    Args:
        tables: Handles of the newest versions.
        oldest: Age of the oldest version that must stay readable, at least ``KEPT``.
    """
    for name, handle in tables.handles.items():
        with explained(name):
            handle.optimize.compact()
            handle.vacuum(retention_hours=int(max(oldest, KEPT) / timedelta(hours=1)) + 1, dry_run=False)


@contextmanager
def explained(name: str = "") -> Iterator[None]:
    """Turn an error of the Delta Lake library, or of reading its files, into one of this package, with one line.

    Args:
        name: Name of the table; empty for a query over several, whose error names it.
    """
    import duckdb
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

    where = layout.table(name)
    try:
        yield
    except CommitFailedError as error:
        raise ObjectChangedError(f"{where} was written to by another load: {_one_line(error)}") from None
    except TableNotFoundError:
        raise
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise StorageError(f"{layout.LEDGER}: {_one_line(error)[:_LONGEST]}") from error
    except (DeltaError, pa.ArrowException, OSError, duckdb.Error) as error:
        line = _one_line(error)
        if isinstance(error, duckdb.Error):
            if not any(words in line for words in _READING):
                raise  # a bug in a query
            if stream := _STREAM.search(line):
                where, line = layout.table(stream[1]), stream[2]
        if "Generic S3 error" in line or "Generic HTTP" in line:
            raise StorageError(f"{where}: {line[:_LONGEST]}") from error
        raise InputError(f"{where}: {line[:_LONGEST]}; {_CHANGED}") from error


def _one_line(error: Exception) -> str:
    return one_line(_COLOURS.sub("", str(error)))
