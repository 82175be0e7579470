"""DuckDB connections over the ledger's tables: bounded memory, no network, times in UTC."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from alfamix_core.project.ledger.tables import Tables, explained
from alfamix_core.records.tables import BLOCK, SCHEMAS

MEMORY_LIMIT = "2GiB"
"""Memory limit of the queries, beyond which they use the disk."""


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return an empty database that spills to a folder."""
    con = duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    con.execute("set TimeZone = 'UTC'")
    return con


class Database:
    """Queries over a DuckDB database.

    Args:
        con: Connection to it.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def execute(self, sql: str) -> None:
        """Run statements."""
        with explained():
            self._con.execute(sql)

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return a query's rows as tuples."""
        with explained():
            return self._con.execute(sql, list(values)).fetchall()

    def table(self, sql: str, values: Sequence[object] = ()) -> pa.Table:
        """Return a query's rows as columns."""
        with explained():
            return self._con.sql(sql, params=list(values)).to_arrow_table()

    def reader(self, sql: str, values: Sequence[object] = ()) -> pa.RecordBatchReader:
        """Return a query's rows block by block."""
        with explained():
            return self._con.sql(sql, params=list(values)).to_arrow_reader(BLOCK)

    @contextmanager
    def holding(self, name: str, rows: object) -> Iterator[None]:
        """Make rows readable under a name within a block."""
        self._con.register(name, rows)
        try:
            yield
        finally:
            self._con.unregister(name)


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for temporary files of a load or a query; it is removed with the object."""
    return tempfile.TemporaryDirectory(prefix="alfamix-ledger-", ignore_cleanup_errors=True)


def register(con: duckdb.DuckDBPyConnection, tables: Tables, suffix: str = "") -> None:
    """Make each table readable under its name and a suffix."""
    for name in SCHEMAS:
        con.register(name + suffix, tables.dataset(name))


def register_rows(con: duckdb.DuckDBPyConnection, alias: str, table: str, paths: Sequence[Path]) -> None:
    """Make the rows of parquet files readable under a name; without files, a table's columns without rows."""
    if paths:
        con.execute(f"create temp view {alias} as select * from read_parquet({[str(path) for path in paths]})")
    else:
        con.register(alias, SCHEMAS[table].empty_table())
