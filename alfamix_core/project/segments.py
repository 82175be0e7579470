"""Segments of the ledger: what was read once as JSON Lines is read as tables from then on.

A segment is only a faster form of the files that it covers. It is named by its content and written once; whoever
finds no segment, or deletes them all while no round is unfinished, gets the same ledger, later.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.samples import check_class, resolver
from alfamix_core.records.project import Project
from alfamix_core.records.round import FrozenInput
from alfamix_core.records.segment import CARD_FILE, SCHEMAS, Covered, SegmentCard, Tables
from alfamix_core.storage import Store

WORTH_LINES = 20_000
"""From so many lines on that no segment covers, one is written; fewer are read in a fraction of a second."""
WORTH_FILES = 200
"""From so many files on likewise: on S3 each is a request."""


def is_worth_it(rows: int, files: int) -> bool:
    """Whether a segment of so many lines of so many files saves more than it costs."""
    return rows >= WORTH_LINES or files >= WORTH_FILES


def usable(store: Store) -> dict[str, tuple[SegmentCard, FrozenInput]]:
    """Return the segments that stand for files of this project, by name; no file is covered twice."""
    found: dict[str, tuple[SegmentCard, FrozenInput]] = {}
    covered: set[str] = set()
    present = {entry.key for entry in store.list(layout.LEDGER)}
    for name in store.folders(layout.LEDGER):
        key = layout.segment(name) + CARD_FILE
        if key not in present:
            continue  # its writer was killed, or is at it
        data = store.read(key).data
        try:
            card = SegmentCard.parse(data, key)
        except InputError:
            continue  # of another version of alfamix
        keys = {each.key for each in card.covers}
        whole = all(f"{layout.segment(name)}{table}.parquet" in present for table in card.tables)
        if whole and card.uri == store.uri and not keys & covered:
            covered |= keys
            found[name] = card, FrozenInput(key=key, sha256=hashlib.sha256(data).hexdigest())
    return found


def load(store: Store, project: Project, item: FrozenInput) -> Tables:
    """Read a frozen segment.

    Args:
        store: the project.
        project: its settings: what a segment says must hold for them as it must for the files that it covers.
        item: the segment's card.

    Raises:
        InputError: the segment is gone or changed, a label is not a class, a uri is below no data prefix.
    """
    try:
        data = store.read(item.key).data
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise InputError(f"{item.key} is not what it was when the round was planned; put it back")
        card = SegmentCard.parse(data, item.key)
        with _fetched(store, item.key, card, card.tables) as paths:
            tables = {
                name: pq.read_table(paths[name], schema=schema) if name in paths else schema.empty_table()
                for name, schema in SCHEMAS.items()
            }
    except MissingObjectError:
        raise InputError(f"{item.key} or a table beside it is gone; put it back") from None
    _check(store, project, tables["samples"], tables["events"])
    return Tables(**tables)


def matching(store: Store, card: SegmentCard, ids: pa.Array) -> pa.Table:
    """Return the rows of a segment's samples whose ids are among those given, block by block and never all at once."""
    if "samples" not in card.tables:
        return SCHEMAS["samples"].empty_table()
    key = layout.segment(_name(card)) + CARD_FILE
    with _fetched(store, key, card, ["samples"]) as paths, pq.ParquetFile(paths["samples"]) as file:
        found = [
            group
            for index in range(file.num_row_groups)
            if (group := _matching(file, index, ids)) is not None and group.num_rows
        ]
    return pa.concat_tables([SCHEMAS["samples"].empty_table(), *found])


def write(store: Store, covers: Sequence[Covered], tables: Mapping[str, Path], rows: int) -> FrozenInput:
    """Write a segment, unless it is there.

    Args:
        store: the project.
        covers: the files for which it stands.
        tables: parquet files by name, of those that have rows.
        rows: of all tables.

    Returns:
        Its card, as an input of a round.
    """
    card = SegmentCard(
        uri=store.uri,
        covers=tuple(covers),
        tables={name: _file_digest(path) for name, path in sorted(tables.items())},
        rows=rows,
    )
    folder = layout.segment(_name(card))
    for name, path in sorted(tables.items()):
        store.create_from(f"{folder}{name}.parquet", path)
    store.create_same(folder + CARD_FILE, card.document())
    return FrozenInput(key=folder + CARD_FILE, sha256=hashlib.sha256(card.document()).hexdigest())


def compact(store: Store, inputs: Sequence[FrozenInput], fresh: Tables) -> tuple[FrozenInput, ...]:
    """Write a segment of the inputs that none covers if that is worth it; return the inputs to use from now on.

    Args:
        store: the project.
        inputs: as ``freeze`` returned them.
        fresh: what those of them say that are no segments.
    """
    raw = [item for item in inputs if not item.key.startswith(layout.LEDGER)]
    if not is_worth_it(fresh.rows, len(raw)):
        return tuple(inputs)
    covers = []
    for item in raw:
        entry = store.entry(item.key)
        if entry is None:
            raise InputError(f"{item.key} is gone while it was read; put it back")
        covers.append(Covered(key=item.key, sha256=item.sha256, size=entry.size))
    with tempfile.TemporaryDirectory(prefix="alfamix-") as folder:
        paths = {}
        for name in SCHEMAS:
            table = getattr(fresh, name)
            if table.num_rows:
                paths[name] = Path(folder) / f"{name}.parquet"
                pq.write_table(table, paths[name], compression="zstd")
        segment = write(store, covers, paths, fresh.rows)
    return (*(item for item in inputs if item.key.startswith(layout.LEDGER)), segment)


def _name(card: SegmentCard) -> str:
    return hashlib.sha256(card.document()).hexdigest()[:24]


@contextmanager
def _fetched(
    store: Store, key: str, card: SegmentCard, names: Sequence[str] | Mapping[str, str]
) -> Iterator[dict[str, Path]]:
    """Yield the tables as local files whose digests are right."""
    folder = key.removesuffix(CARD_FILE)
    with tempfile.TemporaryDirectory(prefix="alfamix-") as place:
        paths = {name: Path(place) / f"{name}.parquet" for name in names}
        for name, path in paths.items():
            store.fetch(f"{folder}{name}.parquet", path)
            if _file_digest(path) != card.tables[name]:
                raise InputError(f"{folder}{name}.parquet is not what was written; put it back")
        yield paths


def _matching(file: pq.ParquetFile, index: int, ids: pa.Array) -> pa.Table | None:
    mask = pc.is_in(file.read_row_group(index, columns=["sample_id"])["sample_id"], value_set=ids)
    return file.read_row_group(index).filter(mask) if pc.any(mask).as_py() else None


def _check(store: Store, project: Project, samples: pa.Table, events: pa.Table) -> None:
    """Refuse what the project's settings of today refuse, with the place of the line that was covered."""
    classes = frozenset(project.classes)
    for table in (samples, events):
        known = pa.array(sorted(classes), pa.string())
        label = table["label"]
        bad = pc.and_(pc.is_valid(label), pc.invert(pc.is_in(label, value_set=known)))
        for row in table.filter(bad).slice(0, 1).to_pylist():
            check_class(row["label"], classes, f"{row['key']} line {row['line']}")
    own = store.uri + "/" + layout.DROPS
    below = pc.starts_with(samples["uri"], own)
    for prefix in project.data_prefixes:
        below = pc.or_(below, pc.starts_with(samples["uri"], prefix if prefix.endswith("/") else prefix + "/"))
    resolve = None
    for row in samples.filter(pc.invert(below)).to_pylist():
        resolve = resolve or resolver(own, project.data_prefixes)
        try:
            resolve(row["uri"])
        except InputError as error:
            raise InputError(f"{row['key']} line {row['line']}: {error}") from None


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
