"""Deliver samples: copied files first, the manifest last. Its presence says that the drop is complete.

A delivery only writes to the inbox and to files/. What it leaves out because the project has it is a courtesy: the
load decides, and two deliveries of one picture agree, since a copied file is named by its content.
"""

import hashlib
import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json.encoder import encode_basestring
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, ObjectExistsError
from alfamix_core.project import layout, rounds
from alfamix_core.project.inbox.reading import ROWS, FileReader, batches
from alfamix_core.project.inbox.samples import Sample, named, with_split
from alfamix_core.project.ledger.ledger import Ledger, open_ledger
from alfamix_core.records.manifest import sample_id
from alfamix_core.records.project import Project
from alfamix_core.storage import Store, list_uri, normalise_folder_uri, open_store, path_of
from alfamix_core.storage.samples import open_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Registered:
    """What became of a delivery.

    Attributes:
        name: of the drop; empty when there was nothing new.
        added: samples that are new to the project.
        known: samples that were left out because the project has them.
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
    """Register a folder of images, an S3 prefix, or a manifest; what is known already is left out.

    Samples below one of the project's data prefixes stay where they are. Others must be local files: they are copied
    to ``files/<sha256>``, and have an id made of their content unless their manifest gives them one.

    Args:
        store: the project.
        source_uri: uri of the folder, the prefix, or a file that ends in .jsonl.
        name: name of the drop; by default made of the source and its content.
        labelled: whether the first folder below the source is the class.
        test_share: share of the labelled samples without a split, by hash of their id, that go to the test split.
        val_share: likewise, to the val split.
        progress: called with (samples done, samples in all) while files are copied.

    Raises:
        InputError: nothing to register, a class that the project does not have, a line that is no sample, a uri
            outside the data prefixes, an id with another uri, shares above 1 in sum; nothing was registered.
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
        with open_ledger(store, project, datetime.now(UTC)) as ledger:
            if not source.refer:
                _check_itself(ledger, source, source_uri)  # in the delivery's words, before its files have other names
                source = _named_by_content(store, source, root, folder)
            _check_itself(ledger, source, source_uri)
            _check_known(ledger, source, source_uri)
            fresh = _fresh(ledger, source)
        manifest, digest, count = _write_manifest(fresh, (test_share, val_share), folder)
        done = Registered(name, count, source.rows - count, "referred to in place" if source.refer else "copied")
        if not count:
            return replace(done, name="")
        done = replace(done, name=name or f"{_slug(source_uri)}-{digest[:8]}")
        if name and store.entry(layout.manifest(name)) is not None:
            raise _taken(name)  # before anything is copied
        if not source.refer:
            _copy(store, fresh, source.files, root, folder / "copied", progress)
        try:
            store.create_from(layout.manifest(done.name), manifest)
        except ObjectExistsError:
            raise _taken(done.name) from None
    return done


def _taken(name: str) -> InputError:
    return InputError(f'there is a drop "{name}" already; give this one another --name')


@dataclass(frozen=True)
class _Source:
    """What a source holds, on disk.

    Attributes:
        path: parquet file with the columns of a manifest's rows; ``line`` is the source's.
        rows: how many there are.
        refer: whether all lie below a data prefix.
        files: the delivered uri of each uri below files/, where they are to be copied.
    """

    path: Path
    rows: int
    refer: bool
    files: dict[str, str]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, block by block."""
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches()


def _read_source(project: Project, source_uri: str, labelled: bool, folder: Path) -> _Source:
    path = folder / "source.parquet"
    if source_uri.endswith(".jsonl"):
        _read_manifest(project, source_uri, labelled, folder / "manifest-source.jsonl", path)
    else:
        with pq.ParquetWriter(path, ROWS["samples"], compression="none") as writer:
            for batch in batches(ROWS["samples"], _listed(project, source_uri, labelled)):
                writer.write_batch(batch)
    source = _Source(path, pq.read_metadata(path).num_rows, True, {})
    starts = tuple(normalise_folder_uri(prefix).rstrip("/") + "/" for prefix in project.data_prefixes)
    outside = [uri for batch in source.batches() for uri in batch["uri"].to_pylist() if not uri.startswith(starts)]
    for uri in outside:
        if not uri.startswith("file:"):
            raise InputError(f"{uri} is under none of the project's data_prefixes; add its prefix to project.json")
    if outside and len(outside) < source.rows:
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
    """Give files that are to be copied the uri of their copy, and an id made of their bytes unless they have one."""
    files: dict[str, str] = {}

    def rows() -> Iterator[tuple[object, ...]]:
        for batch in source.batches():
            for row in batch.to_pylist():
                with _opened(row["uri"], root) as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                own = row["sample_id"] != sample_id(row["uri"])
                uri = store.uri_of(layout.copied(digest))
                files.setdefault(uri, row["uri"])
                yield tuple({**row, "sample_id": row["sample_id"] if own else digest[:16], "uri": uri}.values())

    path = folder / "named.parquet"
    with pq.ParquetWriter(path, ROWS["samples"], compression="none") as writer:
        for block in batches(ROWS["samples"], rows()):
            writer.write_batch(block)
    return _Source(path, source.rows, False, files)


def _check_itself(ledger: Ledger, source: _Source, source_uri: str) -> None:
    """Refuse a delivery that contradicts itself.

    Raises:
        InputError: an id has two uris, or a sample two labels.
    """
    where = source_uri.rsplit("/", 1)[-1]
    rows = ds.dataset(source.path)
    contradiction = ledger.query(
        """
        with twice as (select sample_id from delivery group by sample_id having count(*) > 1),
            firsts as (
                select * from delivery semi join twice using (sample_id)
                qualify row_number() over (partition by sample_id order by line) = 1
            )
        select delivery.line, sample_id, delivery.uri, delivery.label, firsts.uri as first_uri,
            firsts.label as first_label
        from delivery join firsts using (sample_id)
        where delivery.uri <> firsts.uri or delivery.label is distinct from firsts.label
        order by delivery.line limit 1
        """,
        delivery=rows,
    ).to_pylist()
    for row in contradiction:
        if row["uri"] != row["first_uri"]:
            raise InputError(_other_uri(f"{where} line {row['line']}", row["sample_id"], row["first_uri"], row["uri"]))
        raise InputError(
            f"{source_uri} line {row['line']}: {row['uri']} has the label {row['label']!r}, and {row['first_label']!r} "
            "on an earlier line"
        )


def _check_known(ledger: Ledger, source: _Source, source_uri: str) -> None:
    """Refuse a delivery that contradicts the project.

    Raises:
        InputError: the project has an id with another uri.
    """
    where, rows = source_uri.rsplit("/", 1)[-1], ds.dataset(source.path)
    for row in ledger.query(
        """select delivery.line, sample_id, delivery.uri, samples.uri as known
        from delivery join samples using (sample_id) where delivery.uri <> samples.uri order by line limit 1""",
        delivery=rows,
    ).to_pylist():
        raise InputError(_other_uri(f"{where} line {row['line']}", row["sample_id"], row["known"], row["uri"]))


def _other_uri(where: str, sample_id: str, known: str, uri: str) -> str:
    return f'{where}: id "{sample_id}" is already the sample {known}; it cannot be {uri} as well'


def _fresh(ledger: Ledger, source: _Source) -> pa.Table:
    """Return the rows that the project does not have, each sample once, in order of the source."""
    return ledger.query(
        """
        with twice as (select sample_id from delivery group by sample_id having count(*) > 1)
        select sample_id, uri, label, split, "group" from (
            select * from delivery anti join twice using (sample_id)
            union all
            select * from delivery semi join twice using (sample_id)
            qualify row_number() over (partition by sample_id order by line) = 1
        )
        anti join samples using (sample_id)
        order by line
        """,
        delivery=ds.dataset(source.path),
    )


def _write_manifest(rows: pa.Table, shares: tuple[float, float], folder: Path) -> tuple[Path, str, int]:
    """Write the manifest to disk; return it, its SHA-256 and how many lines it has."""
    path, digest = folder / layout.MANIFEST_FILE, hashlib.sha256()
    with path.open("wb") as stream:
        for batch in rows.to_batches():
            columns = (column.to_pylist() for column in batch.columns)
            text = "".join(_line(with_split(Sample(*row), *shares)) for row in zip(*columns, strict=True)).encode()
            digest.update(text)
            stream.write(text)
    return path, digest.hexdigest(), rows.num_rows


def _line(sample: Sample) -> str:
    """Return the line of ``ManifestLine``, in a fraction of its time."""
    text = f'{{"uri": {encode_basestring(sample.uri)}, "id": "{sample.sample_id}"'
    if sample.label is not None:
        text += f', "label": {encode_basestring(sample.label)}'
    if sample.split != "train":
        text += f', "split": "{sample.split}"'
    if sample.group is not None:
        text += f', "group": {encode_basestring(sample.group)}'
    return text + "}\n"


def _copy(
    store: Store, fresh: pa.Table, files: dict[str, str], root: str, to: Path, progress: Callable[[int, int], None]
) -> None:
    """Copy the files of new samples; one that another delivery has copied is left as it is."""
    for done, uri in enumerate(fresh["uri"].to_pylist(), start=1):
        digest = uri.rsplit("/", 1)[-1]
        # what is uploaded is what was looked at, whatever becomes of the file meanwhile
        with _opened(files[uri], root) as stream, to.open("wb") as out:
            shutil.copyfileobj(stream, out)
        with to.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise InputError(f"{files[uri]} was changed while it was read; deliver it again")
        store.create_from(layout.copied(digest), to)
        progress(done, fresh.num_rows)


def _opened(uri: str, root: str) -> io.BufferedReader:
    """Open a delivered file without following a link out of the source."""
    try:
        return open_file(uri, (root,))
    except OSError as error:
        raise InputError(f"{uri} is not a file that can be read: {error.strerror or error}") from None


def _slug(source_uri: str) -> str:
    last = source_uri.rstrip("/").removesuffix(".jsonl").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-").lower()[:60] or "drop"
