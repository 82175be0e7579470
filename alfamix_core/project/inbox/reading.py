"""Read one inbox file as a whole: its rows as a parquet file, or the reason why it is set aside.

Large files are read column by column. Doubtful ones are read again line by line, and those records alone decide what is
valid.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import json as arrow_json

from alfamix_core.errors import InputError, LinkError, NotAFileError, one_line
from alfamix_core.project import layout
from alfamix_core.project.inbox.listing import InboxFile, Kind
from alfamix_core.project.inbox.samples import LONGEST_PLAIN, PLAIN, canonical, check_class, resolver
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import ID_PATTERN, ManifestLine, sample_id
from alfamix_core.records.project import Project
from alfamix_core.records.record import MAX_LINE, read_lines
from alfamix_core.records.tables import CORRECTIONS, EVENTS, SAMPLES, batches
from alfamix_core.storage import Store, normalise_folder_uri

_BLOCK_BYTES = 8 * 2**20  # bytes read at a time by column
_WORTH_BYTES = 65_536  # a smaller file is read as fast line by line
_TABLES = {"samples": "samples", "events": "events", "withdrawn": "corrections", "released": "corrections"}
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"


def _without(schema: pa.Schema, *names: str) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in names])


ROWS = {
    "samples": _without(SAMPLES, "load"),
    "events": _without(EVENTS, "load", "loaded_at"),
    "corrections": _without(CORRECTIONS, "load"),
}
"""Columns of a file's rows, without those that a load adds."""


@dataclass(frozen=True)
class Reading:
    """The content of a file.

    Attributes:
        table: Table of the ledger to which its rows belong.
        path: Parquet file with the columns of ``ROWS``; None if the file is set aside.
        sha256: Digest of the file's bytes, hex.
        size: Size of the file in bytes.
        reason: Reason why it is set aside: file, line, what must hold and what came; else empty.
    """

    table: str
    path: Path | None
    sha256: str
    size: int
    reason: str = ""


def read(store: Store, project: Project, file: InboxFile, folder: Path) -> Reading:
    """Read one file; nothing of it counts unless every line is valid.

    Args:
        store: The project.
        project: Settings: classes and data prefixes.
        file: File as it was listed.
        folder: Empty folder for the result.

    Raises:
        MissingObjectError: It is gone.
        ObjectChangedError: It was replaced while it was read.
    """
    raw, table = folder / "raw.jsonl", _TABLES[file.kind]
    try:
        store.fetch(file.key, raw)
    except (LinkError, NotAFileError) as error:
        return Reading(table, None, "", file.size, one_line(error))
    with raw.open("rb") as stream:
        sha256, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
    path = folder / "rows.parquet"
    prefixes = (*project.data_prefixes, store.uri_of(layout.FILES.rstrip("/")))
    folder_uri = store.uri_of(file.key).rsplit("/", 1)[0] + "/"
    try:
        FileReader(file.key, file.kind, raw, frozenset(project.classes), prefixes, folder_uri).read(path)
    except InputError as error:
        return Reading(table, None, sha256, size, one_line(error))
    finally:
        raw.unlink()
    return Reading(table, path, sha256, size)


class FileReader:
    """One file on disk, and the settings under which it is read.

    Args:
        key: Name of the file for the user.
        kind: Kind of the file.
        raw: Path of the file.
        classes: Classes of the project.
        prefixes: URIs of folders whose files a manifest may name.
        folder_uri: URI of the folder to which a manifest's uris are relative.
    """

    def __init__(
        self,
        key: str,
        kind: Kind,
        raw: Path,
        classes: frozenset[str],
        prefixes: tuple[str, ...],
        folder_uri: str,
    ) -> None:
        self._key, self._kind, self._raw = key, kind, raw
        self._schema = ROWS[_TABLES[kind]]
        self._classes, self._prefixes, self._folder_uri = classes, prefixes, folder_uri

    def read(self, path: Path) -> None:
        """Write the file's rows as parquet.

        Raises:
            InputError: A line is not what the format says; the message has file, line and what must hold.
        """
        if not self.columns(path):
            self.lines(path)

    def lines(self, path: Path) -> None:
        """Read it line by line.

        Raises:
            InputError: A line is not what the format says; the message has file, line and what must hold.
        """
        rows = {"samples": self._samples, "events": self._events}.get(self._kind, self._corrections)
        with self._raw.open("rb") as stream, pq.ParquetWriter(path, self._schema, compression="none") as writer:
            for batch in batches(self._schema, rows(stream)):
                writer.write_batch(batch)

    def columns(self, path: Path) -> bool:
        """Read it column by column; return whether every line is certainly valid."""
        check = {"samples": self._checked_samples, "events": self._checked_events}.get(self._kind)
        if check is None or self._raw.stat().st_size < _WORTH_BYTES or not (count := _object_lines(self._raw)):
            return False
        kind = _JSON[self._kind]
        rows = 0
        try:
            reader = arrow_json.open_json(
                self._raw,
                read_options=arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=arrow_json.ParseOptions(explicit_schema=kind, unexpected_field_behavior="error"),
            )
            with pq.ParquetWriter(path, self._schema, compression="none") as writer:
                for batch in reader:
                    batch.validate(full=True)
                    checked = check(batch, rows + 1)
                    if checked is None:
                        return False
                    writer.write_batch(checked)
                    rows += batch.num_rows
        except (pa.ArrowException, ValueError):
            return False
        return rows == count

    def _samples(self, stream: Iterable[bytes]) -> Iterator[tuple[object, ...]]:
        resolve = resolver(self._folder_uri, self._prefixes)
        for number, line in read_lines(ManifestLine, stream, self._key):
            where = f"{self._key} line {number}"
            try:
                uri = resolve(line.uri)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            if line.label is not None:
                check_class(line.label, self._classes, where)
            yield line.id or sample_id(uri), uri, line.label, line.split or "train", line.group, self._key, number

    def _events(self, stream: Iterable[bytes]) -> Iterator[tuple[object, ...]]:
        for number, event in read_lines(LabelEvent, stream, self._key):
            if event.label is not None:
                check_class(event.label, self._classes, f"{self._key} line {number}")
            yield (
                event.event_id,
                event.sample_id,
                event.kind,
                event.label,
                event.annotator,
                event.round,
                event.time,
                self._key,
                number,
            )

    def _corrections(self, stream: Iterable[bytes]) -> Iterator[tuple[object, ...]]:
        if self._kind == "withdrawn":
            for number, gone in read_lines(Withdrawn, stream, self._key):
                yield "withdrawn", gone.sample_id, 0, gone.reason, gone.time, self._key, number
        else:
            for number, back in read_lines(Released, stream, self._key):
                yield "released", back.sample_id, back.round, "", back.time, self._key, number

    @cached_property
    def _says_null(self) -> bool:
        end = b""
        with self._raw.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                if b"null" in end + block:
                    return True
                end = block[-3:]
        return False

    def _checked_samples(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch | None:
        uri = batch["uri"]
        below, plain = _resolved(uri, self._folder_uri, self._prefixes)
        split, ids = pc.fill_null(batch["split"], "train"), batch["id"]
        if ids.null_count:
            pairs = zip(ids.to_pylist(), below.to_pylist(), strict=True)
            ids = pa.array([name or sample_id(text or "") for name, text in pairs], pa.string())
        checks = [
            plain,
            pc.match_substring_regex(ids, ID_PATTERN),
            pc.or_kleene(pc.is_null(batch["label"]), pc.is_in(batch["label"], pa.array(sorted(self._classes)))),
            pc.is_in(split, pa.array(["train", "val", "test"])),
            pc.or_kleene(pc.is_null(batch["group"]), pc.less_equal(pc.utf8_length(batch["group"]), 200)),
        ]
        columns = [ids, below, batch["label"], split, batch["group"]]
        return self._batch(checks, columns, first)

    def _checked_events(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch | None:
        labels = pc.equal(batch["kind"], "label")
        if batch["round"].null_count and self._says_null:
            return None  # a round may be missing, but not null
        asked = pc.fill_null(batch["round"], 0)
        checks = [
            _short(batch["event_id"], 200),
            pc.is_valid(batch["sample_id"]),
            pc.is_in(batch["kind"], pa.array(["label", "skip", "cannot_label", "withdraw"])),
            pc.equal(labels, pc.is_valid(batch["label"])),
            pc.or_kleene(pc.is_null(batch["label"]), pc.is_in(batch["label"], pa.array(sorted(self._classes)))),
            _short(batch["annotator"], 200),
            pc.and_(pc.greater_equal(asked, 0), pc.less(asked, 2**31)),
            pc.fill_null(pc.match_substring_regex(batch["time"], _TIME), False),
            pc.invert(pc.is_in(pc.utf8_slice_codeunits(batch["time"], 0, 4), pa.array(["0000", "0001", "9999"]))),
        ]
        if not _all(checks):
            return None
        time = pc.cast(batch["time"], EVENTS.field("time").type)
        columns = [batch["event_id"], batch["sample_id"], batch["kind"], batch["label"], batch["annotator"]]
        return self._batch([], [*columns, pc.cast(asked, pa.int32()), time], first)

    def _batch(self, checks: list[pa.Array], columns: list[pa.Array], first: int) -> pa.RecordBatch | None:
        if not _all(checks):
            return None
        count = len(columns[0])
        columns = [*columns, pa.repeat(self._key, count), pa.array(np.arange(first, first + count))]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


_JSON = {
    "samples": pa.schema([(name, pa.string()) for name in ("uri", "id", "label", "split", "group")]),
    "events": pa.schema(
        [(name, pa.string()) for name in ("event_id", "sample_id", "kind", "label", "annotator", "time")]
        + [("round", pa.int64())]
    ),
}


def _object_lines(path: Path) -> int:
    """Return the number of a file's lines if each begins with ``{`` and none is too long, else 0.

    No value of these formats holds an object, so such a line begins one; equal numbers of rows and lines then mean one
    row per line.
    """
    lines, length, start = 0, 0, True
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            data = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(data == ord("\n")) + 1
            begins = ends[ends < len(data)]
            if (start and block[:1] != b"{") or np.any(data[begins] != ord("{")):
                return 0
            lengths = np.diff(ends, prepend=-length, append=len(data))
            if lengths.max() > MAX_LINE:
                return 0
            lines += len(begins) + start
            length, start = int(lengths[-1]), block.endswith(b"\n")
    return lines


def _resolved(uri: pa.Array, folder_uri: str, prefixes: tuple[str, ...]) -> tuple[pa.Array, pa.Array]:
    """Return absolute uris, and whether each is certainly allowed: plain, in the folder or below a prefix."""
    short = pc.fill_null(pc.less_equal(pc.utf8_length(uri), LONGEST_PLAIN), False)
    relative = pc.fill_null(pc.match_substring_regex(uri, f"^{PLAIN}$"), False)
    plain = relative
    for start in canonical(prefixes):
        rest = pc.match_substring_regex(pc.utf8_slice_codeunits(uri, len(start)), f"^{PLAIN}$")
        plain = pc.or_(plain, pc.fill_null(pc.and_(pc.starts_with(uri, start), rest), False))
    folder = normalise_folder_uri(folder_uri)
    folder = folder if folder.endswith("/") else folder + "/"
    joined = pc.binary_join_element_wise(folder, uri, "")
    return pc.if_else(relative, joined, uri), pc.and_(short, plain)


def _short(column: pa.Array, longest: int) -> pa.Array:
    length = pc.fill_null(pc.utf8_length(column), 0)
    return pc.and_(pc.greater_equal(length, 1), pc.less_equal(length, longest))


def _all(checks: list[pa.Array]) -> bool:
    return all(pc.all(pc.fill_null(column, False)).as_py() is not False for column in checks)
