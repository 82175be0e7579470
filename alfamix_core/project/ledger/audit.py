"""Compare the ledger with its sources: every row must be in a file of the inbox or in a committed round."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from alfamix_core.project import layout, rounds
from alfamix_core.project.inbox.listing import list_inbox
from alfamix_core.project.ledger import load
from alfamix_core.project.ledger.load import Unread
from alfamix_core.project.ledger.queries import connect, register, scratch
from alfamix_core.project.ledger.tables import Tables, explained, open_tables
from alfamix_core.records.project import Project
from alfamix_core.storage import Store

_SAME = {
    "samples": ("sample_id", "uri", "label", "split", "group"),
    "events": ("event_id", "sample_id", "kind", "label", "annotator", "round", "time"),
    "corrections": ("kind", "sample_id", "round", "reason", "time"),
    "questions": ("sample_id", "uri", "round", "rank", "suggestion", "audit", "thumbnail", "asked_at"),
    "quarantine": ("sample_id", "uri", "reason", "round"),
}
_NAMES = {"samples": "sample_id", "events": "event_id"}
_FROM_FILES = ("samples", "events", "corrections")
_SOURCE = f"'{layout.ROUNDS}' || lpad(left_.round::varchar, 6, '0') || '/round.json'"  # of questions and quarantine


@dataclass(frozen=True)
class Difference:
    """Rows of one table that differ from their sources.

    Attributes:
        table: Name of the table.
        rows: Number of rows.
        example: First of them by name.
        key: File from which the rows were loaded; empty for rows of rounds.
        kind: ``foreign``: the file is unchanged since it was loaded, and does not hold the row; ``vanished``: the file
            was changed or deleted since; ``missing``: a loaded file holds a row that the table does not; ``twice``: one
            row is there several times.
    """

    table: str
    rows: int
    example: str
    key: str
    kind: str


def differences(store: Store, project: Project, now: datetime) -> Iterator[Difference]:
    """Read the inbox and all committed rounds again, and yield where the tables differ from them.

    Args:
        store: The project.
        project: Its settings.
        now: Current moment, UTC.

    Raises:
        InputError: A table cannot be read.
    """
    tables = open_tables(store)
    known = load.known_files(tables)
    records = tuple(record for record in rounds.read_all(store) if record.is_committed)
    everything = Unread(list_inbox(store).files, records, {}, (), ())
    with scratch() as text, connect(Path(text)) as con:
        register(con, tables, "_table")
        register(con, Tables({}), "_nothing")
        coming = load.pending(con, store, project, Tables({}), everything, now, Path(text))
        read = dict(con.execute("select key, sha256 from inbox_new where line = 0").fetchall())
        same = {key: file for key, file in known.items() if read.get(key) == file.sha256}
        unchanged = frozenset(key for key, file in same.items() if file.state == coming.files[key] == load.LOADED)
        con.execute("create temp table unchanged as select unnest(?::varchar[]) as key", [sorted(unchanged)])
        for name, columns in _SAME.items():
            yield from _compare(con, name, columns, unchanged)
        for key, file in same.items():
            # set aside under these very settings, although it is valid
            if file.state != coming.files[key] and file.basis == load.basis_of(project):
                yield Difference("inbox", 1, key, key, "foreign")


def _compare(
    con: duckdb.DuckDBPyConnection, name: str, columns: tuple[str, ...], unchanged: frozenset[str]
) -> Iterator[Difference]:
    def rows(sql: str) -> list[tuple[str, str, int]]:
        with explained(name):
            return con.execute(sql).fetchall()

    example, read, table = _NAMES.get(name, "sample_id"), f"{name}_read", f"{name}_table"
    is_from_files = name in _FROM_FILES
    source, group = ("left_.key", "left_.key") if is_from_files else (_SOURCE, "''")
    equal = _equal(columns)
    foreign = f"""
        select {group}, min({example}), count(*) from {table} as left_
        where not exists (select 1 from {read} as right_ where {equal}) group by 1 having count(*) > 0 order by 1
    """
    for key, first, count in rows(foreign):
        kind = "vanished" if is_from_files and key not in unchanged else "foreign"
        yield Difference(name, count, first, key, kind)
    # the first line about a sample counts: the table must have the id, from any of its lines
    known = _equal(("sample_id",)) if name == "samples" else equal
    missing = f"""
        select {group}, min({example}), count(*) from {read} as left_
        where {source} in (select key from unchanged) and not exists (select 1 from {table} as right_ where {known})
        group by 1 having count(*) > 0 order by 1
    """
    for key, first, count in rows(missing):
        yield Difference(name, count, first, key, "missing")
    if is_from_files:
        identity = '"sample_id"' if name == "samples" else ", ".join(f'"{column}"' for column in columns)
        twice = f"""
            select '', min({example}), count(*)
            from (select {identity} from {table} group by {identity} having count(*) > 1) having count(*) > 0
        """
        for _, first, count in rows(twice):
            yield Difference(name, count, first, "", "twice")


def _equal(columns: tuple[str, ...]) -> str:
    return " and ".join(f'left_."{column}" is not distinct from right_."{column}"' for column in columns)
