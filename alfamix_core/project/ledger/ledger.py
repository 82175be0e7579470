"""The state of every sample, by the rules of ``rules.sql``: computed from the tables, never stored."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from alfamix_core.errors import InputError
from alfamix_core.project import layout
from alfamix_core.project.ledger import load
from alfamix_core.project.ledger.load import KnownFile, Load, Unread
from alfamix_core.project.ledger.queries import Database, connect, register, scratch
from alfamix_core.project.ledger.tables import Tables, explained, open_tables
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import SampleId, uniform
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.round import Counts, Round
from alfamix_core.records.tables import EVENTS, SCHEMAS
from alfamix_core.storage import Store

_RULES = files(__package__).joinpath("rules.sql")
_STATES = {"quarantined": "quarantined", "skipped": "skipped", "disputed": "disputed", "queried": "queried"}
_STATES |= {"pool": "pool", "reserve": "reserve", "held_out": "held_out"}


class SetAside(NamedTuple):
    """A file, or one line of it, that cannot be used; line 0 stands for the whole file."""

    key: str
    line: int
    reason: str


class Ledger(Database):
    """The project's samples at one moment.

    Args:
        con: Database with the tables under their names.
        settings: Settings of the project, or a round's copy of them.
        now: Moment at which questions expire, UTC.
        tables: Tables at the versions that are read.
        unread: Files and rounds that no load has read; None for a round's frozen versions.
        coming: Rows of the unread, which are in the database although they are not loaded.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        settings: Project,
        now: datetime,
        tables: Tables,
        unread: Unread | None = None,
        coming: Load | None = None,
    ) -> None:
        self.settings, self.now, self.tables, self.unread, self.coming = settings, now, tables, unread, coming
        super().__init__(con)
        self._has_states = False
        _state_rules(con, settings, now)

    def compute_states(self) -> None:
        """Compute the states once, before several queries over them."""
        if not self._has_states:
            self.execute(
                """create table state_rows as
                select sample_id, uri, "group", split, verdict, state, label, label_round, load from states;
                create or replace view states as from state_rows"""
            )
            self._has_states = True

    def counts(self) -> Counts:
        """Count the samples by their state."""
        fields: Counter[str] = Counter()
        for state, split, count in self.rows("select state, split, count(*) from states group by all"):
            fields[split if state == "labelled" else _STATES[state]] += count
        (withdrawn,) = self.rows("select count(*) from samples semi join withdrawn using (sample_id)")[0]
        return Counts(samples=fields.total() + withdrawn, withdrawn=withdrawn, **fields)

    def pool(self, earlier: Mapping[str, int], on_map: int) -> pa.RecordBatchReader:
        """Return the samples that may be asked about now, in order of their ids.

        Args:
            earlier: Versions of the tables; samples that came after them are new.
            on_map: Number of samples on the map: those with the smallest SHA-256 of their id.

        Returns:
            Columns sample_id, uri, group, on_map, new.
        """
        self.compute_states()
        return self.reader(
            """
            with chosen as (
                select sample_id from states where state = 'pool' order by sha256(sample_id), sample_id limit ?
            )
            select states.sample_id, uri, "group", chosen.sample_id is not null as on_map, load > ? as new
            from states left join chosen using (sample_id)
            where state = 'pool' order by states.sample_id
            """,
            [on_map, earlier.get("samples", -1)],
        )

    def labelled(self) -> pa.RecordBatchReader:
        """Return the samples that have a label and can be read, in order of their ids.

        Returns:
            Columns sample_id, uri, label (int32, the index of its class), split, group, round (int32, of the deciding
            answer; 0: none).
        """
        self.compute_states()
        return self.reader(
            """select sample_id, uri, (list_position(?, label) - 1)::integer as label, split, "group",
                label_round::integer as round
            from states where state = 'labelled' order by sample_id""",
            [list(self.settings.classes)],
        )

    def reserve(self, seed: int, most: int) -> list[tuple[SampleId, str]]:
        """Return (sample_id, uri) of the audit reserve's samples that may be asked about now, in their order."""
        rows = self.rows("select sample_id, uri from states where state = 'reserve'")
        return sorted(rows, key=lambda row: (audit_order(seed, row[0]), row[0]))[:most]

    def open_queries(self) -> list[Question]:
        """Return the open questions, by round and rank."""
        columns = ", ".join(Question.model_fields)
        rows = self.rows(f"select {columns} from open_queries order by round, rank")
        return [Question.model_construct(**dict(zip(Question.model_fields, row, strict=True))) for row in rows]

    def open_rounds(self) -> frozenset[int]:
        """Return the rounds that have an open question."""
        return frozenset(round_ for (round_,) in self.rows("select distinct round from open_queries"))

    def asking_rounds(self) -> frozenset[int]:
        """Return the rounds that have asked any question, open or not."""
        return frozenset(round_ for (round_,) in self.rows("select distinct round from questions"))

    def ids_of(self, texts: Sequence[str]) -> dict[str, SampleId]:
        """Return the ids of samples, withdrawn ones included, by the ids or uris given."""
        wanted = pa.table({"text": pa.array(sorted(set(texts)), pa.string())})
        with self.holding("wanted", wanted):
            by_uri = self.rows("select text, sample_id from samples join wanted on uri = text")
            by_id = self.rows("select text, sample_id from samples join wanted on sample_id = text")
        return dict(by_uri) | dict(by_id)

    def known(self, ids: Sequence[str]) -> frozenset[SampleId]:
        """Return the ids that belong to samples, withdrawn ones included."""
        wanted = pa.table({"sample_id": pa.array(sorted(set(ids)), pa.string())})
        with self.holding("wanted", wanted):
            return frozenset(
                sample_id
                for (sample_id,) in self.rows("select sample_id from samples semi join wanted using (sample_id)")
            )

    def withdrawn(self) -> frozenset[SampleId]:
        """Return the ids that must not be used any more."""
        return frozenset(sample_id for (sample_id,) in self.rows("select sample_id from withdrawn"))

    def quarantined(self) -> dict[SampleId, int]:
        """Return, by id, the last round that could not read the sample, for those that are still in quarantine."""
        rows = "select sample_id, max(round) from quarantine semi join quarantined using (sample_id) group by sample_id"
        return dict(self.rows(rows))

    def inbox(self) -> list[KnownFile]:
        """Return the last reading of each inbox file, in order of the keys."""
        columns = ", ".join(KnownFile.__dataclass_fields__)
        rows = self.rows(f"select {columns} from inbox_files order by key")
        return [KnownFile(*row) for row in rows]

    def set_aside(self) -> list[SetAside]:
        """Return the files and lines that are set aside now, without those of deleted files."""
        gone = list(self.unread.gone) if self.unread is not None else []
        odd = [SetAside(name, 0, reason) for name, reason in self.unread.odd] if self.unread is not None else []
        rows = self.rows(
            """select key, inbox.line, inbox.reason from inbox join inbox_files using (key, load)
            where inbox.state = 'set aside' and (inbox.line > 0 or inbox_files.state = 'set aside')
                and not list_contains(?::varchar[], key)
            group by all order by key, line""",
            [gone],
        )
        return odd + [SetAside(*row) for row in rows]

    def unknown_answers(self) -> int:
        """Count the label events about samples that no drop has delivered; they count when one does."""
        return int(self.rows("select count(*) from events anti join samples using (sample_id)")[0][0])

    def unasked_answers(self) -> int:
        """Count the label events that decide nothing because no round asked for them."""
        rows = "select count(*) from events semi join placed using (sample_id) anti join answerable using (sample_id)"
        return int(self.rows(rows)[0][0])

    def repeated_event_ids(self) -> list[str]:
        """Return the event ids that came back with other content, the first hundred by name."""
        rows = "select event_id from events group by event_id having count(*) > 1 order by event_id limit 100"
        return [event_id for (event_id,) in self.rows(rows)]

    def decided(self) -> int:
        """Count the samples that answers have given a label."""
        return int(self.rows("select count(*) from states where verdict = 'label'")[0][0])

    def new_samples(self, earlier: Mapping[str, int]) -> int:
        """Count the samples that came after those versions."""
        return int(self.rows("select count(*) from samples where load > ?", [earlier.get("samples", -1)])[0][0])

    def new_drops(self, earlier: Mapping[str, int]) -> list[str]:
        """Return the keys of the manifests whose samples came after those versions."""
        rows = "select distinct key from samples where load > ? order by key"
        return [key for (key,) in self.rows(rows, [earlier.get("samples", -1)])]

    def touched(self, earlier: Mapping[str, int]) -> int:
        """Count the samples with any event or label after those versions: at least the new labels."""
        return int(self.rows(f"select count(*) from ({_TOUCHED})", _touched_since(earlier))[0][0])

    def new_labels(self, earlier: Mapping[str, int]) -> int:
        """Count the samples that have a label now, and had none or another one at those versions."""
        touched = self.table(_TOUCHED, _touched_since(earlier))
        with scratch() as folder, explained(), connect(Path(folder)) as con:
            for name in SCHEMAS:
                version = earlier.get(name, -1)
                rows = f"select * from {name} where load <= {version}"
                if name in ("samples", "events", "questions"):
                    rows = f"select * from ({rows}) semi join touched using (sample_id)"
                with self.holding("touched", touched):
                    con.register(name, self.table(rows))
            _state_rules(con, self.settings, self.now)
            before = con.sql("select sample_id, label from states where label is not null").to_arrow_table()
        with self.holding("touched", touched), self.holding("before", before):
            return int(
                self.rows(
                    """select count(*) from states semi join touched using (sample_id)
                    left join before using (sample_id)
                    where states.label is not null and states.label is distinct from before.label"""
                )[0][0]
            )

    def superseded(self, events: Sequence[LabelEvent]) -> list[str]:
        """Return the ids of the later events that replace those given with another answer.

        Args:
            events: Any events; those unknown to the ledger are superseded by none.
        """
        names = ("event_id", "sample_id", "kind", "label", "annotator")
        rows = [event.model_dump(include=set(names)) for event in events]
        wanted = pa.Table.from_pylist(rows, schema=pa.schema([EVENTS.field(name) for name in names]))
        with self.holding("wanted", wanted):
            later = self.rows(
                """select distinct last.event_id from wanted
                semi join events using (event_id, sample_id, annotator)
                join last_events as last using (sample_id, annotator)
                where last.kind <> wanted.kind or last.label is distinct from wanted.label order by all"""
            )
        return [event_id for (event_id,) in later]

    def check_classes(self) -> None:
        """Refuse settings without a class that labels in the ledger name.

        Raises:
            InputError: The message names the class.
        """
        rows = self.rows(
            """select label, count(*) from (select label from samples union all select label from events)
            where label is not null and not list_contains(?, label) group by label order by label limit 1""",
            [list(self.settings.classes)],
        )
        for label, count in rows:
            raise InputError(
                f'classes: "{label}" must stay, since {count} labels name it; project.json has '
                f"{', '.join(self.settings.classes)}"
            )

    def query(self, sql: str, **rows: pa.Table) -> pa.Table:
        """Return the result of a query over the tables, the rules' views and other rows by name."""
        with ExitStack() as stack:
            for name, table in rows.items():
                stack.enter_context(self.holding(name, table))
            return self.table(sql)

    def commit(self, store: Store) -> None:
        """Append the rows that are not loaded yet to the tables; the caller holds the project's lock.

        Raises:
            ObjectChangedError: Another load came first; open the ledger again.
        """
        if self.coming is not None and self.coming.rows:
            self.tables = load.commit(self._con, store, self.tables, self.coming)

    def since(self, earlier: Round | None) -> Mapping[str, int]:
        """Return the versions that a round froze, as a point of comparison.

        Empty, so that everything is new, without a round, or if the ledger was made again or restored since.
        """
        if earlier is None or earlier.ledger != self.tables.identity:
            return {}
        now = self.versions
        return earlier.versions if all(now[name] >= was for name, was in earlier.versions.items()) else {}

    @property
    def versions(self) -> dict[str, int]:
        """The version of each table."""
        return self.tables.versions


_SMALL_BYTES = 8 * 2**20  # a quarter of a second of reading
_TOUCHED = """
    select sample_id from events where load > ?
    union select sample_id from samples where load > ? and label is not null
"""


def _touched_since(earlier: Mapping[str, int]) -> list[object]:
    return [earlier.get(name, -1) for name in ("events", "samples")]


@contextmanager
def open_ledger(store: Store, settings: Project, now: datetime) -> Iterator[Ledger]:
    """Open the ledger as it is now, with the news of the inbox and of committed rounds; write nothing to the project.

    Raises:
        InputError: A table is not what ingest wrote.
    """
    tables = open_tables(store)
    unread = load.look(store, settings, tables)
    with _beyond(store, settings, now, tables, unread) as (con, coming):
        yield Ledger(con, settings, now, tables, unread, coming)


@contextmanager
def open_samples(store: Store, settings: Project, now: datetime) -> Iterator[Database]:
    """Open the table ``samples`` as it is now, with the samples of small manifests that are not loaded yet.

    Those of larger manifests are unknown until a load.

    Raises:
        InputError: A table is not what ingest wrote.
    """
    tables = open_tables(store, names=("samples", "inbox"))
    unread = load.look_at_manifests(store, settings, tables, _SMALL_BYTES)
    with _beyond(store, settings, now, tables, unread) as (con, _):
        yield Database(con)


@contextmanager
def _beyond(
    store: Store, settings: Project, now: datetime, tables: Tables, unread: Unread
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Load]]:
    """Make the tables readable under their names, with the rows of the unread."""
    with scratch() as folder, connect(Path(folder)) as con:
        register(con, tables, "_table")
        coming = load.pending(con, store, settings, tables, unread, now, Path(folder))
        for name in SCHEMAS:
            con.execute(f"create view {name} as select * from {name}_table union all select * from {name}_new")
        yield con, coming


@contextmanager
def loaded_ledger(settings: Project, now: datetime, tables: Tables) -> Iterator[Ledger]:
    """Open the ledger without unread."""
    with scratch() as folder, connect(Path(folder)) as con:
        register(con, tables)
        yield Ledger(con, settings, now, tables)


@contextmanager
def frozen_ledger(store: Store, record: Round) -> Iterator[Ledger]:
    """Open the ledger that a round has frozen."""
    tables = open_tables(store, record.versions)
    if tables.identity != record.ledger:
        raise InputError(
            f"round {record.number} froze another ledger than {layout.LEDGER} holds now; put that one back, or give "
            "the round up: alfamix round --abandon"
        )
    with loaded_ledger(record.settings, record.planned_at, tables) as ledger:
        yield ledger


def _state_rules(con: duckdb.DuckDBPyConnection, settings: Project, now: datetime) -> None:
    queue = settings.queue
    con.execute(
        """create table parameters as select ?::timestamptz as now, ? as answers, ? as agreement, ? as max_answers,
        ?::interval as expires_after, ? as accept_unasked, ?::double as audit_share, ?::varchar as seed""",
        [
            now,
            queue.answers,
            queue.agreement,
            queue.max_answers,
            timedelta(days=queue.expires_after_days),
            queue.accept_unasked,
            settings.audit.share,
            str(settings.seed),
        ],
    )
    con.execute(_RULES.read_text(encoding="utf-8"))


def audit_order(seed: int, sample_id: str) -> float:
    """Return the number by which the audit orders samples, in [0, 1): those below audit.share are in the reserve.

    ``rules.sql`` computes the same.
    """
    return uniform(f"audit/{seed}/{sample_id}")
