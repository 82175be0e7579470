"""A DuckDB connection over the ledger's tables: bounded memory, no network, times in UTC."""

import tempfile
from pathlib import Path

import duckdb

from alfamix_core.project.ledger.tables import Tables
from alfamix_core.records.tables import SCHEMAS

MEMORY_LIMIT = "2GiB"
"""What the queries may hold in memory; beyond it they use the disk."""


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


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for what a load or a query writes, which is removed with the object."""
    return tempfile.TemporaryDirectory(prefix="alfamix-ledger-", ignore_cleanup_errors=True)


def register(con: duckdb.DuckDBPyConnection, tables: Tables, suffix: str = "") -> None:
    """Make each table readable under its name and a suffix."""
    for name in SCHEMAS:
        con.register(name + suffix, tables.dataset(name))


def register_rows(con: duckdb.DuckDBPyConnection, alias: str, table: str, path: Path | None) -> None:
    """Make the rows of a parquet file readable under a name, a table's columns without rows where there is no file."""
    if path is None:
        con.register(alias, SCHEMAS[table].empty_table())
    else:
        con.execute(f"create temp view {alias} as select * from read_parquet('{path}')")
