"""Segments of the ledger: what was read once as JSON Lines is read as tables from then on.

A segment is only a faster form of the files that it covers. It is named by its content and written once; whoever
finds no segment, or deletes them all while no round is unfinished, gets the same ledger, later.

Small segments are merged into one that covers the files of all. It is there before they go, and as long as they are
there too they are not used. Only who holds the project's lock deletes them, so no round freezes what is about to go;
who reads without the lock and comes too late starts again (``ledger.current``).
"""

import hashlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, MissingObjectError
from alfamix_core.project import layout
from alfamix_core.project.samples import check_class, resolver
from alfamix_core.records.project import Project
from alfamix_core.records.round import FrozenInput
from alfamix_core.records.segment import (
    CARD_FILE,
    IDS,
    IDS_TABLE,
    SAMPLES,
    SCHEMAS,
    Covered,
    SegmentCard,
    Tables,
    concatenate,
)
from alfamix_core.storage import Ranged, Store

WORTH_LINES = 20_000
"""From so many lines on that no segment covers, one is written; fewer are read in a fraction of a second."""
WORTH_FILES = 64
"""From so many files on likewise: on S3 each is some requests."""
SMALL_LINES = 100_000
"""A segment of fewer lines costs more requests than time to read them, and is merged with others of its kind."""
MANY_SMALL = 8
"""From so many small segments on they are merged."""
GROUP_ROWS = 65_536
"""Samples of a row group: what is read at least to see whether an id is known with another uri."""

_NAME_LETTERS = 24  # of the SHA-256 of its card


class SegmentGoneError(InputError):
    """A segment was there when the project was listed and is gone, which is no harm unless a round has frozen it."""


def is_worth_it(rows: int, files: int) -> bool:
    """Whether a segment of so many lines of so many files saves more than it costs."""
    return rows >= WORTH_LINES or files >= WORTH_FILES


def usable(store: Store) -> dict[str, tuple[SegmentCard, FrozenInput]]:
    """Return the segments that stand for files of this project, by name; no file is covered twice.

    Of segments that overlap, the one that covers more files is used.
    """
    whole: dict[str, tuple[SegmentCard, FrozenInput]] = {}
    present = {entry.key for entry in store.list(layout.LEDGER)}
    for key in sorted(present):
        folder, _, file = key.rpartition("/")
        name = folder.removeprefix(layout.LEDGER)
        if file != CARD_FILE or "/" in name:
            continue
        try:
            data = store.read(key).data
            if hashlib.sha256(data).hexdigest()[:_NAME_LETTERS] != name:
                continue  # damaged
            card = SegmentCard.parse(data, key)
        except (InputError, MissingObjectError):
            continue  # of another version of alfamix, or merged at this moment
        if "samples" in card.tables and IDS_TABLE not in card.tables:
            continue  # likewise
        if card.uri == store.uri and all(f"{folder}/{table}.parquet" in present for table in card.tables):
            whole[name] = card, FrozenInput(key=key, sha256=hashlib.sha256(data).hexdigest())
    used: list[str] = []
    covered: set[str] = set()
    for name in sorted(whole, key=lambda name: (-len(whole[name][0].covers), name)):
        keys = {each.key for each in whole[name][0].covers}
        if not keys & covered:
            covered |= keys
            used.append(name)
    return {name: whole[name] for name in sorted(used)}


def load(store: Store, project: Project, item: FrozenInput) -> Tables:
    """Read a frozen segment.

    Args:
        store: the project.
        project: its settings: what a segment says must hold for them as it must for the files that it covers.
        item: the segment's card.

    Raises:
        SegmentGoneError: the segment is gone.
        InputError: it was changed, a label is not a class, a uri is below no data prefix.
    """
    _, tables = _load(store, item)
    _check(store, project, tables.samples, tables.events)
    return tables


def matching(store: Store, name: str, card: SegmentCard, ids: pa.Array) -> pa.Table:
    """Return the rows of a segment's samples whose ids are among those given.

    The fingerprints of all ids are read, two to three bytes each; of the samples only the row groups that may have
    one of those given, which a row group without any has by chance once in 65,536 ids.

    Raises:
        SegmentGoneError: the segment is gone.
        InputError: it was changed.
    """
    found = [SAMPLES.empty_table()]
    if "samples" in card.tables and len(ids):
        folder = layout.segment(name)
        wanted = np.unique(_fingerprints(ids))
        try:
            data = store.read(f"{folder}{IDS_TABLE}.parquet").data
            if hashlib.sha256(data).hexdigest() != card.tables[IDS_TABLE]:
                raise InputError(f"{folder}{IDS_TABLE}.parquet is not what was written; put it back")
            with pq.ParquetFile(pa.BufferReader(data)) as file:
                groups = [index for index in range(file.num_row_groups) if _has_any(file.read_row_group(index), wanted)]
            if groups:
                key = f"{folder}samples.parquet"
                with pq.ParquetFile(Ranged(store, key), page_checksum_verification=True) as file:
                    for index in groups:
                        group = file.read_row_group(index)
                        found.append(group.filter(pc.is_in(group["sample_id"], value_set=ids)))
        except MissingObjectError:
            raise _gone(folder + CARD_FILE) from None
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{folder}samples.parquet is not what was written ({error}); put it back") from None
    return pa.concat_tables(found)


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
    with tempfile.TemporaryDirectory(prefix="alfamix-") as place:
        paths = dict(tables)
        if "samples" in tables:
            paths[IDS_TABLE] = Path(place) / "ids.parquet"
            _write_ids(tables["samples"], paths[IDS_TABLE])
        card = SegmentCard(
            uri=store.uri,
            covers=tuple(covers),
            tables={name: _file_digest(path) for name, path in sorted(paths.items())},
            rows=rows,
        )
        folder = layout.segment(hashlib.sha256(card.document()).hexdigest()[:_NAME_LETTERS])
        for name, path in sorted(paths.items()):
            store.create_from(f"{folder}{name}.parquet", path)
    store.create_same(folder + CARD_FILE, card.document())
    return FrozenInput(key=folder + CARD_FILE, sha256=hashlib.sha256(card.document()).hexdigest())


def samples_writer(path: Path) -> pq.ParquetWriter:
    """Return a writer of a samples table as a segment has it: its pages carry checksums, for it is read in parts."""
    return pq.ParquetWriter(path, SAMPLES, compression="zstd", write_page_checksum=True)


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
    segment = _write_tables(store, covers, fresh)
    return (*(item for item in inputs if item.key.startswith(layout.LEDGER)), segment)


def mergeable(store: Store) -> list[FrozenInput]:
    """Return the small segments, if they are many enough to be merged."""
    small = [item for card, item in usable(store).values() if card.rows < SMALL_LINES]
    return small if len(small) >= MANY_SMALL else []


def merge(store: Store, inputs: Sequence[FrozenInput]) -> tuple[FrozenInput, ...]:
    """Write the small ones of the inputs' segments as one, if they are many; return the inputs to use from now on.

    Args:
        store: the project.
        inputs: as ``freeze`` returned them.
    """
    small = [item for item in mergeable(store) if item in inputs]
    if len(small) < MANY_SMALL:
        return tuple(inputs)
    loaded = [_load(store, item) for item in small]
    covers = [each for card, _ in loaded for each in card.covers]
    merged = _write_tables(store, covers, concatenate([tables for _, tables in loaded]))
    return (merged, *(item for item in inputs if item not in small))


def are_there(store: Store, inputs: Sequence[FrozenInput]) -> bool:
    """Whether no segment among the inputs has been merged away since they were listed."""
    wanted = {item.key for item in inputs if item.key.startswith(layout.LEDGER)}
    return wanted <= {entry.key for entry in store.list(layout.LEDGER)}


def superseded(store: Store) -> list[str]:
    """Return the names of whole segments every file of which another one covers that is used."""
    used = usable(store)
    covered = {each.key for card, _ in used.values() for each in card.covers}
    found = []
    for name in store.folders(layout.LEDGER):
        key = layout.segment(name) + CARD_FILE
        if name not in used:
            try:
                card = SegmentCard.parse(store.read(key).data, key)
            except (InputError, MissingObjectError):
                continue
            if card.uri == store.uri and covered.issuperset(each.key for each in card.covers):
                found.append(name)
    return found


def delete(store: Store, names: Iterable[str]) -> None:
    """Delete segments, the card first, so that a kill leaves nothing that looks whole."""
    for name in names:
        folder = layout.segment(name)
        store.delete(folder + CARD_FILE)
        for entry in list(store.list(folder)):
            store.delete(entry.key)


def _load(store: Store, item: FrozenInput) -> tuple[SegmentCard, Tables]:
    try:
        data = store.read(item.key).data
        if hashlib.sha256(data).hexdigest() != item.sha256:
            raise InputError(f"{item.key} is not what it was when the round was planned; put it back")
        card = SegmentCard.parse(data, item.key)
        names = [name for name in card.tables if name in SCHEMAS]
        with _fetched(store, item.key.removesuffix(CARD_FILE), card, names) as paths:
            tables = {
                name: pq.read_table(paths[name], schema=schema) if name in paths else schema.empty_table()
                for name, schema in SCHEMAS.items()
            }
    except MissingObjectError:
        raise _gone(item.key) from None
    return card, Tables(**tables)


def _gone(key: str) -> SegmentGoneError:
    return SegmentGoneError(f"{key} or a table beside it is gone; put it back")


def _write_tables(store: Store, covers: Sequence[Covered], tables: Tables) -> FrozenInput:
    with tempfile.TemporaryDirectory(prefix="alfamix-") as folder:
        paths = {}
        for name in SCHEMAS:
            table = getattr(tables, name)
            if table.num_rows:
                paths[name] = Path(folder) / f"{name}.parquet"
                if name == "samples":
                    with samples_writer(paths[name]) as writer:
                        writer.write_table(table, row_group_size=GROUP_ROWS)
                else:
                    pq.write_table(table, paths[name], compression="zstd")
        return write(store, covers, paths, tables.rows)


def _write_ids(samples: Path, path: Path) -> None:
    """Write the fingerprints of a samples table, row group by row group."""
    with (
        pq.ParquetFile(samples) as file,
        pq.ParquetWriter(
            *(path, IDS),
            compression="none",
            use_dictionary=False,
            column_encoding={"fingerprint": "DELTA_BINARY_PACKED"},
        ) as writer,
    ):
        for index in range(file.num_row_groups):
            found = _fingerprints(file.read_row_group(index, columns=["sample_id"])["sample_id"])
            writer.write_table(pa.Table.from_arrays([pa.array(np.sort(found))], schema=IDS))


def _fingerprints(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    return np.fromiter((zlib.crc32(key.encode()) for key in ids.to_pylist()), np.uint32, len(ids))


def _has_any(group: pa.Table, wanted: npt.NDArray[np.uint32]) -> bool:
    """Whether a row group of ids has one of the fingerprints, which are ascending."""
    found = group["fingerprint"].to_numpy()
    place = np.searchsorted(found, wanted)
    inside = place < len(found)
    return bool(np.any(found[place[inside]] == wanted[inside]))


@contextmanager
def _fetched(store: Store, folder: str, card: SegmentCard, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Yield tables as local files whose digests are right."""
    with tempfile.TemporaryDirectory(prefix="alfamix-") as place:
        paths = {name: Path(place) / f"{name}.parquet" for name in names}
        for name, path in paths.items():
            store.fetch(f"{folder}{name}.parquet", path)
            if _file_digest(path) != card.tables[name]:
                raise InputError(f"{folder}{name}.parquet is not what was written; put it back")
        yield paths


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
