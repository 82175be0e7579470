"""Deliver samples: copied files first, the manifest last. Its presence marks the drop as complete.

A delivery writes only to the inbox and to files/. Leaving out known samples is a courtesy: the load decides. Two
deliveries of one picture agree, since a copied file is named by its content.
"""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json.encoder import encode_basestring
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, ObjectExistsError
from alfamix_core.project import layout, rounds
from alfamix_core.project.inbox.reading import ROWS, FileReader
from alfamix_core.project.inbox.samples import OTHER_URI, named, split_of
from alfamix_core.project.ledger.ledger import open_samples
from alfamix_core.project.ledger.queries import Database
from alfamix_core.records.manifest import sample_id
from alfamix_core.records.project import Project
from alfamix_core.records.tables import batches
from alfamix_core.storage import Store, list_uri, normalise_folder_uri, open_store, path_of
from alfamix_core.storage.samples import open_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SMALL_ROWS = 1_000_000  # a delivery of which 200 MB of ids and uris fit in memory
_ESCAPED = r'[\x00-\x1f"\\]'  # by JSON


@dataclass(frozen=True)
class Registered:
    """The outcome of a delivery.

    Attributes:
        name: Name of the drop; empty if nothing was new.
        added: Number of samples that are new to the project.
        known: Number of samples left out because the project has them.
        how: ``copied`` into the project, or ``referred to in place``.
    """

    name: str
    added: int
    known: int
    how: str


def register(
    store: Store,
    source_uri: str,
    *,
    name: str = "",
    labelled: bool = False,
    test_share: float = 0.0,
    val_share: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Registered:
    """Register a folder of images, an S3 prefix, or a manifest, without the samples that the project has.

    Samples below one of the project's data prefixes stay where they are. Others must be local files: they are copied
    to ``files/<sha256>``, and have an id made of their content unless their manifest gives them one. Large manifests
    that wait to be loaded are not compared: if they hold the same samples, the load counts each once.

    Args:
        store: The project.
        source_uri: URI of the folder, the prefix, or a file that ends in .jsonl.
        name: Name of the drop; by default made of the source and its content.
        labelled: Whether the first folder below the source is the class.
        test_share: Share of the labelled samples without a split, by hash of their id, that go to the test split.
        val_share: Likewise, to the val split.
        progress: Called with (copied samples, all samples) while files are copied.

    Raises:
        InputError: There is nothing to register, a class that the project does not have, a line that is no sample, a
            uri outside the data prefixes, an id with another uri, or shares above 1 in sum; nothing was registered.
    """
    if test_share + val_share > 1:
        raise InputError(f"the shares of test {test_share:g} and val {val_share:g} must be 1 at most in sum")
    if name:
        layout.name(name, "drop")
    project = rounds.read_settings(store)
    with tempfile.TemporaryDirectory(prefix="alfamix-") as text:
        folder = Path(text)
        root = source_uri.rsplit("/", 1)[0] if source_uri.endswith(".jsonl") else source_uri
        source = _read_source(project, source_uri, labelled, folder)
        if not source.rows:
            raise InputError(f"{source_uri} has nothing to register: no sample in it")
        with open_samples(store, project, datetime.now(UTC)) as samples:
            if not source.refer:
                _check(
                    samples, source, source_uri
                )  # before its files have other names, so that messages have the delivery's
                source = _named_by_content(store, source, root, folder)
            fresh = _fresh(samples, source, source_uri)
        manifest = folder / layout.MANIFEST_FILE
        digest = _write_manifest(manifest, fresh, (test_share, val_share))
        last = source_uri.rstrip("/").removesuffix(".jsonl").rsplit("/", 1)[-1]
        drop = name or f"{layout.slug(last, 'drop')}-{digest[:8]}"
        known = Registered("", 0, source.rows, "referred to in place" if source.refer else "copied")
        if not fresh.rows:
            return known
        if store.entry(layout.manifest(drop)) is not None:  # before anything is copied
            if name:
                raise _taken(name)
            return known  # these very samples, delivered and not loaded yet
        if not source.refer:
            _copy(store, fresh, root, folder / "copied", progress)
        try:
            store.create_from(layout.manifest(drop), manifest)
        except ObjectExistsError:
            raise _taken(drop) from None
        return replace(known, name=drop, added=fresh.rows, known=source.rows - fresh.rows)


def _taken(name: str) -> InputError:
    return InputError(f'there is a drop "{name}" already; give this one another --name')


@dataclass(frozen=True)
class _Source:
    """The samples of a source, on disk.

    Attributes:
        path: Parquet file with the columns of a manifest's rows; ``line`` is the source's. If files are to be copied,
            ``uri`` is the copy's and ``source`` the file's.
        rows: Number of samples.
        refer: Whether all lie below a data prefix.
        left_out: Lines that repeat another sample.
    """

    path: Path
    rows: int
    refer: bool
    left_out: "pa.Array | None" = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the samples, block by block."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches():
                if self.left_out is not None:
                    batch = batch.filter(pc.invert(pc.is_in(batch["line"], self.left_out)))
                if batch.num_rows:
                    yield batch


def _read_source(project: Project, source_uri: str, labelled: bool, folder: Path) -> _Source:
    path = folder / "source.parquet"
    if source_uri.endswith(".jsonl"):
        _read_manifest(project, source_uri, labelled, folder / "manifest-source.jsonl", path)
    else:
        with pq.ParquetWriter(path, ROWS["samples"], compression="none") as writer:
            for batch in batches(ROWS["samples"], _listed(project, source_uri, labelled)):
                writer.write_batch(batch)
    source = _Source(path, pq.read_metadata(path).num_rows, True)
    outside = 0
    for batch in source.batches():
        below = pa.array(np.zeros(batch.num_rows, bool))
        for prefix in project.data_prefixes:
            below = pc.or_(below, pc.starts_with(batch["uri"], normalise_folder_uri(prefix).rstrip("/") + "/"))
        for uri in batch["uri"].filter(pc.invert(below)).to_pylist():
            outside += 1
            if not uri.startswith("file:"):
                raise InputError(f"{uri} is under none of the project's data_prefixes; add its prefix to project.json")
    if 0 < outside < source.rows:
        raise InputError(f"{source_uri} names files below a data prefix and others; register them apart")
    return replace(source, refer=not outside)


def _read_manifest(project: Project, source_uri: str, labelled: bool, raw: Path, path: Path) -> None:
    where = source_uri.rsplit("/", 1)[-1]
    if labelled:
        raise InputError(f"--labelled is for folders; {where} says the labels itself")
    folder_uri = source_uri.rsplit("/", 1)[0]
    store, key = open_store(folder_uri), unquote(where) if source_uri.startswith("file:") else where
    entry = store.entry(key)
    if entry is None or not entry.size:
        raise InputError(f"{source_uri}: {'missing' if entry is None else 'empty file'}")
    store.fetch(key, raw)
    FileReader(where, "samples", raw, frozenset(project.classes), project.data_prefixes, folder_uri + "/").read(path)


def _listed(project: Project, source_uri: str, labelled: bool) -> Iterator[tuple[object, ...]]:
    """Yield the rows of all images below a folder or prefix."""
    classes = frozenset(project.classes)
    root = normalise_folder_uri(source_uri) + "/"
    for line, (uri, _) in enumerate(list_uri(source_uri), start=1):
        if uri.lower().endswith(IMAGE_SUFFIXES):
            label = None
            if labelled:
                label, below, _ = uri.removeprefix(root).partition("/")
                label = path_of(f"file:///{label}").name if uri.startswith("file:") else label
                if not below or label not in classes:
                    raise InputError(
                        f"{uri}: with --labelled the first folder below the source must be a class "
                        f"({named(classes)}), not {label!r}"
                    )
            yield sample_id(uri), uri, label, "train", None, "", line


def _named_by_content(store: Store, source: _Source, root: str, folder: Path) -> _Source:
    """Replace each file's uri by that of its copy, and its id, unless it has its own, by one made of its bytes."""

    def rows() -> Iterator[tuple[object, ...]]:
        for batch in source.batches():
            for row in batch.to_pylist():
                with _opened(row["uri"], root) as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                own = row["sample_id"] != sample_id(row["uri"])
                named = {
                    "sample_id": row["sample_id"] if own else digest[:16],
                    "uri": store.uri_of(layout.copied(digest)),
                }
                yield *{**row, **named}.values(), row["uri"]

    path, schema = folder / "named.parquet", ROWS["samples"].append(pa.field("source", pa.string()))
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for block in batches(schema, rows()):
            writer.write_batch(block)
    return _Source(path, source.rows, False)


def _check(samples: Database, source: _Source, source_uri: str) -> None:
    """Refuse a delivery that contradicts itself.

    The table ``repeated`` then holds the lines whose id an earlier line has.

    Raises:
        InputError: An id has two uris, or a sample two labels.
    """
    samples.execute(
        f"""
        create or replace temp view delivery as select * from read_parquet('{source.path}');
        create or replace temp table repeated as
            with suspects as (
                -- numbers take a fraction of the memory that ids take
                select sample_id, uri, label, line from delivery
                where hash(sample_id) in (select hash(sample_id) from delivery group by all having count(*) > 1)
            )
            select line, sample_id, uri, label, first(uri) over same as first_uri, first(label) over same as first_label
            from suspects window same as (partition by sample_id order by line)
            qualify row_number() over same > 1;
        """
    )
    where = source_uri.rsplit("/", 1)[-1]
    for line, known_id, uri, label, first_uri, first_label in samples.rows(
        "select * from repeated where uri <> first_uri or label is distinct from first_label order by line limit 1"
    ):
        if uri != first_uri:
            raise InputError(OTHER_URI.format(where, line, known_id, first_uri, uri))
        raise InputError(
            f"{source_uri} line {line}: {uri} has the label {label!r}, and {first_label!r} on an earlier line"
        )


def _fresh(samples: Database, source: _Source, source_uri: str) -> _Source:
    """Return the samples that the project does not have, each once.

    Raises:
        InputError: The delivery contradicts itself, or the project has an id with another uri.
    """
    _check(samples, source, source_uri)
    # nothing tells the database how large the ledger is: it would keep all of it in memory, and not the delivery
    disabled = "build_side_probe_side,join_order" if source.rows <= _SMALL_ROWS else ""
    samples.execute(
        f"""
        set disabled_optimizers = '{disabled}';
        create temp table known as
            select delivery.line, sample_id, delivery.uri, samples.uri as known_uri
            from samples join delivery using (sample_id);
        set disabled_optimizers = '';
        """
    )
    where = source_uri.rsplit("/", 1)[-1]
    for line, known_id, uri, known_uri in samples.rows(
        "select * from known where uri <> known_uri order by line limit 1"
    ):
        raise InputError(OTHER_URI.format(where, line, known_id, known_uri, uri))
    left_out = samples.table("select line from known union select line from repeated")["line"].combine_chunks()
    return replace(source, rows=source.rows - len(left_out), left_out=left_out)


def _write_manifest(path: Path, source: _Source, shares: tuple[float, float]) -> str:
    """Write the manifest to disk and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for batch in source.batches():
            text = _lines(batch, shares)
            digest.update(text)
            stream.write(text)
    return digest.hexdigest()


def _lines(batch: pa.RecordBatch, shares: tuple[float, float]) -> bytes:
    """Return samples as lines of a manifest: equal to those of ``ManifestLine``, in a fraction of the time."""
    split = batch["split"]
    if any(shares):
        rows = zip(*(batch[name].to_pylist() for name in ("sample_id", "label", "split")), strict=True)
        split = pa.array(
            [split_of(own_id, *shares) if label and old == "train" else old for own_id, label, old in rows]
        )
    fields = {"uri": batch["uri"], "id": batch["sample_id"], "label": batch["label"]}
    fields |= {"split": pc.if_else(pc.equal(split, "train"), None, split), "group": batch["group"]}
    parts: list[pa.Array] = []
    for name, column in fields.items():
        if pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
            quoted = pa.array([text and encode_basestring(text)[1:-1] for text in column.to_pylist()], pa.string())
        else:
            quoted = column
        comma = ", " if parts else ""
        parts.append(pc.coalesce(pc.binary_join_element_wise(f'{comma}"{name}": "', quoted, '"', ""), ""))
    lines = pc.binary_join_element_wise("{", *parts, "}\n", "")
    return "".join(lines.to_pylist()).encode()


def _copy(store: Store, source: _Source, root: str, to: Path, progress: Callable[[int, int], None]) -> None:
    """Copy the files of new samples; a file that another delivery has copied stays as it is."""
    done = 0
    for batch in source.batches():
        for uri, original in zip(batch["uri"].to_pylist(), batch["source"].to_pylist(), strict=True):
            digest = uri.rsplit("/", 1)[-1]
            # upload the bytes that were checked, whatever happens to the file meanwhile
            with _opened(original, root) as stream, to.open("wb") as out:
                shutil.copyfileobj(stream, out)
            with to.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    raise InputError(f"{original} was changed while it was read; deliver it again")
            store.create_from(layout.copied(digest), to)
            done += 1
            progress(done, source.rows)


def _opened(uri: str, root: str) -> io.BufferedReader:
    """Open a delivered file, following no link out of the source."""
    try:
        return open_file(uri, (root,))
    except OSError as error:
        raise InputError(f"{uri} is not a file that can be read: {error.strerror or error}") from None
