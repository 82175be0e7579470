"""Compare the ledger with what it was loaded from: every row must stand in a file of the inbox or a committed round."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from alfamix_core.project import rounds
from alfamix_core.project.inbox.listing import list_inbox
from alfamix_core.project.ledger import load
from alfamix_core.project.ledger.load import News
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


@dataclass(frozen=True)
class Difference:
    """Rows of one table that differ from their sources.

    Attributes:
        table: its name.
        rows: how many.
        example: the first by name.
        key: the file from which it says to be; empty for rows of rounds.
        kind: ``foreign``: the file was not changed since it was loaded, and does not hold the row; ``vanished``: the
            file was changed or deleted since; ``missing``: a loaded file holds a row that the table does not;
            ``twice``: an id has more than one row.
    """

    table: str
    rows: int
    example: str
    key: str
    kind: str


def differences(store: Store, project: Project, now: datetime) -> Iterator[Difference]:
    """Read the inbox and all committed rounds again, and yield where the tables differ from them.

    Args:
        store: the project.
        project: its settings.
        now: the current moment, UTC.

    Raises:
        InputError: a table cannot be read.
    """
    tables = open_tables(store)
    known = load.known_files(tables)
    records = tuple(record for record in rounds.read_all(store) if record.is_committed)
    everything = News(list_inbox(store).files, records, {}, (), ())
    with scratch() as text, connect(Path(text)) as con:
        register(con, tables, "_table")
        register(con, Tables({}), "_nothing")
        coming = load.pending(con, store, project, Tables({}), everything, now, Path(text))
        unchanged = [
            key for key, file in known.items() if file.state == load.LOADED and coming.files.get(key) == load.LOADED
        ]
        same = con.execute(
            """select key from inbox_new join (select unnest(?::varchar[]) as key, unnest(?::varchar[]) as sha256)
            using (key, sha256)""",
            [unchanged, [known[key].sha256 for key in unchanged]],
        ).fetchall()
        con.execute("create temp table unchanged as select unnest(?::varchar[]) as key", [[key for (key,) in same]])
        for name, columns in _SAME.items():
            yield from _compare(con, name, columns)


def _compare(con: duckdb.DuckDBPyConnection, name: str, columns: tuple[str, ...]) -> Iterator[Difference]:
    def rows(sql: str) -> list[tuple[str, str, int]]:
        with explained(name):
            return con.execute(sql).fetchall()

    label = _NAMES.get(name, "sample_id")
    equal = " and ".join(f'left_."{column}" is not distinct from right_."{column}"' for column in columns)
    key = "key" if name in _FROM_FILES else "''"
    read = f"{name}_read"
    foreign = f"""
        select {key} as key, min({label}), count(*), {key if name in _FROM_FILES else "'x'"} in (
            select key from unchanged) as is_unchanged
        from {name}_table as left_ where not exists (select 1 from {read} as right_ where {equal})
        group by all order by all
    """
    for where, example, count, is_unchanged in rows(foreign):  # type: ignore[misc]
        kind = "foreign" if is_unchanged or name not in _FROM_FILES else "vanished"
        yield Difference(name, count, example, where, kind)
    if name in _FROM_FILES:
        # of several lines about a sample the first counts: the table must have the id, whichever line that was
        equal = "left_.sample_id = right_.sample_id" if name == "samples" else equal
        missing = f"""
            select key, min({label}), count(*) from {read} as left_ semi join unchanged using (key)
            where not exists (select 1 from {name}_table as right_ where {equal}) group by key order by key
        """
    else:
        missing = f"""
            select '', min({label}), count(*) from {read} as left_
            where left_.round in (select round from {name}_table)
                and not exists (select 1 from {name}_table as right_ where {equal}) having count(*) > 0
        """
    for where, example, count in rows(missing):
        yield Difference(name, count, example, where, "missing")
    if name == "samples":
        twice = """select '', min(sample_id), count(*)
            from (select sample_id from samples_table group by sample_id having count(*) > 1)"""
        for where, example, count in rows(twice):
            if count:
                yield Difference(name, count, example, where, "twice")
