"""Drops: deliveries of samples. Files first, the manifest last: its presence says that the drop is complete."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from json.encoder import encode_basestring
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfamix_core.errors import InputError, ObjectExistsError, SampleError
from alfamix_core.project import layout, raw, rounds, segments
from alfamix_core.project.ledger import current, first_lines, freeze, repeats
from alfamix_core.project.samples import Sample, Samples, add_sample, check_same, named, read_samples, with_split
from alfamix_core.records.corrections import Withdrawn
from alfamix_core.records.manifest import ManifestLine, sample_id
from alfamix_core.records.project import Project
from alfamix_core.records.record import bounded_lines, read_lines
from alfamix_core.records.round import FrozenInput
from alfamix_core.records.segment import SAMPLES, Covered, Tables
from alfamix_core.storage import SampleReader, Store, list_uri, normalise_folder_uri, open_store, path_of

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_COPIED = "files/"
_TOLD = 50_000  # lines between two words of progress


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
    to ``drops/<drop>/files/``, and named by their content, so that a file delivered twice is one sample.

    Args:
        store: the project.
        source_uri: of the folder, the prefix, or a file that ends in .jsonl.
        name: of the drop; by default made of the source and its content.
        labelled: the first folder below the source is the class.
        test_share: of the labelled samples without a split, by hash of their id, that go to the test split.
        val_share: likewise, to the val split.
        progress: called with (samples done, samples in all) while files are copied.

    Raises:
        InputError: nothing to register, a class that the project does not have, a line that is no sample, a uri
            outside the data prefixes, an id with another uri, shares above 1 in sum; nothing was written.
    """
    if test_share + val_share > 1:
        raise InputError(f"the shares of test {test_share:g} and val {val_share:g} must be 1 at most in sum")
    if name:
        layout.name(name, "drop")
    project = rounds.read_settings(store)
    with tempfile.TemporaryDirectory(prefix="alfamix-") as folder:
        found = _spill(project, _read_source(project, source_uri, labelled, progress), Path(folder) / "found.parquet")
        if not found.rows:
            raise InputError(f"{source_uri} has nothing to register: no sample in it")
        twice = _repeated_lines(found, source_uri)
        if found.refer:
            return _refer(store, project, source_uri, name, found, twice, (test_share, val_share), Path(folder))
        samples = [sample for batch in found.batches() for _, sample in _rows(batch)]
    return _copy(store, project, source_uri, name, samples, (test_share, val_share), progress)


def withdraw(store: Store, lines: Iterable[str], reason: str, now: datetime, where: str) -> tuple[str, int]:
    """Withdraw samples: from the next round on they are in no pool and no training set, for ever.

    Args:
        store: the project.
        lines: ids or absolute uris of samples, one a line; blank ones are skipped.
        reason: why, in the user's words; may be empty.
        now: the moment, UTC.
        where: what the user calls the list.

    Returns:
        The name of the batch, empty when all were withdrawn before, and how many samples it withdraws.

    Raises:
        InputError: a line names no sample of the project; nothing was written.
    """
    project = rounds.read_settings(store)
    _, ledger = current(store, project, now)
    texts = {text: number for number, line in reversed([*enumerate(lines, start=1)]) if (text := line.strip())}
    if not texts:
        raise InputError(f"{where} names no sample")
    known = ledger.table.rows_of(texts)
    by_uri = {uri: key for key, uri in ledger.withdrawn.items()}
    by_uri |= ledger.table.ids_of_uris([text for text in texts if text not in known])
    keys = set()
    for text, number in sorted(texts.items(), key=lambda item: item[1]):
        key = text if text in known or text in ledger.withdrawn else by_uri.get(text)
        if key is None:
            raise InputError(f'{where} line {number}: "{text}" is neither the id nor the uri of a sample')
        if key not in ledger.withdrawn:
            keys.add(key)
    if not keys:
        return "", 0
    data = b"".join(Withdrawn(sample_id=key, reason=reason, time=now).json_line() for key in sorted(keys))
    batch = f"{_slug(where)}-{hashlib.sha256(data).hexdigest()[:8]}"
    store.create_same(layout.withdrawn(batch), data)
    return batch, len(keys)


@dataclass(frozen=True)
class _Found:
    """What a source holds, on disk: a million samples need memory for their ids alone.

    Attributes:
        path: parquet file of ``segment.SAMPLES``, in order of the source; ``key`` is empty, ``line`` the source's.
        rows: how many.
        ids: of all.
        refer: whether all lie below a data prefix.
    """

    path: Path
    rows: int
    ids: pa.ChunkedArray
    refer: bool

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows, block by block."""
        with pq.ParquetFile(self.path) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index)


def _rows(batch: pa.Table) -> Iterator[tuple[int, Sample]]:
    """Yield (line, sample) of rows."""
    for key, uri, label, split, group, _, line in zip(*(each.to_pylist() for each in batch.columns), strict=True):
        yield line, Sample(key, uri, label, split, group)


def _spill(project: Project, samples: Iterator[tuple[int, Sample]], path: Path) -> _Found:
    """Write what a source holds to a file.

    Raises:
        InputError: a sample in a bucket that is below no data prefix.
    """
    starts = tuple(normalise_folder_uri(prefix).rstrip("/") + "/" for prefix in project.data_prefixes)
    refer, ids = True, []

    def rows() -> Iterator[tuple[object, ...]]:
        nonlocal refer
        for line, sample in samples:
            if not sample.uri.startswith(starts):
                if not sample.uri.startswith("file:"):
                    raise InputError(
                        f"{sample.uri} is under none of the project's data_prefixes; add its prefix to project.json"
                    )
                refer = False
            yield raw.sample_row(sample, "", line)

    with pq.ParquetWriter(path, SAMPLES, compression="none") as writer:
        for batch in raw.batches(SAMPLES, rows()):
            writer.write_batch(batch)
            ids.append(batch["sample_id"])
    column = pa.chunked_array(ids, pa.string())
    return _Found(path, len(column), column, refer)


@dataclass(frozen=True)
class _Known:
    """What the project has of a delivery.

    Attributes:
        samples: those with its ids, withdrawn ones too.
        inputs: the files of the project.
        fresh: what those of them say that no segment covers, all of which had to be read.
    """

    samples: Samples
    inputs: tuple[FrozenInput, ...]
    fresh: Tables

    def compact(self, store: Store) -> None:
        """Make a segment of what was read where that is worth it.

        Or the next delivery would read it again, and of many small deliveries each all that went before.
        """
        segments.compact(store, self.inputs, self.fresh)


def _known(store: Store, project: Project, ids: pa.ChunkedArray) -> _Known:
    """Look a delivery's ids up in the project."""
    wanted = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    inputs = freeze(store)
    cards = {item.key: (name, card) for name, (card, item) in segments.usable(store).items()}
    if any(item.key.startswith(layout.LEDGER) and item.key not in cards for item in inputs):
        return _known(store, project, ids)  # segments were merged at this moment
    try:
        parts = [segments.matching(store, *cards[item.key], wanted) for item in inputs if item.key in cards]
    except segments.SegmentGoneError:
        return _known(store, project, ids)
    fresh = raw.read(store, project, [item for item in inputs if item.key not in cards])
    parts.append(fresh.samples.filter(pc.is_in(fresh.samples["sample_id"], value_set=wanted)))
    return _Known(first_lines(pa.concat_tables(parts))[0], inputs, fresh)


def _refer(
    store: Store,
    project: Project,
    source_uri: str,
    name: str,
    found: _Found,
    twice: pa.Array,
    shares: tuple[float, float],
    folder: Path,
) -> Registered:
    """Register samples where they are."""
    looked_up = _known(store, project, found.ids)
    known = looked_up.samples
    known_ids, known_uris = (known.table[column].combine_chunks() for column in ("sample_id", "uri"))
    manifest, table = folder / layout.MANIFEST_FILE, folder / "samples.parquet"
    digest = hashlib.sha256()
    number = 0

    def fresh_rows(stream: IO[bytes]) -> Iterator[tuple[object, ...]]:
        nonlocal number
        for batch in found.batches():
            place = pc.index_in(batch["sample_id"], value_set=known_ids)
            has = pc.is_valid(place)
            other = pc.and_(has, pc.not_equal(batch["uri"], known_uris.take(pc.fill_null(place, 0)))) if known else has
            for _, sample in _rows(batch.filter(other).slice(0, 1)):
                check_same(known[sample.sample_id], sample, source_uri)
            fresh = pc.and_(pc.invert(has), pc.invert(pc.is_in(batch["line"], value_set=twice)))
            lines = []
            for _, sample in _rows(batch.filter(fresh)):
                sample = with_split(sample, *shares)
                number += 1
                lines.append(_manifest_line(sample))
                yield raw.sample_row(sample, "", number)
            text = "".join(lines).encode()
            digest.update(text)
            stream.write(text)

    with manifest.open("wb") as stream, pq.ParquetWriter(table, SAMPLES, compression="none") as writer:
        for block in raw.batches(SAMPLES, fresh_rows(stream)):
            writer.write_batch(block)
    done = Registered(name, number, found.rows - number, "referred to in place")
    if not number:
        return replace(done, name="")
    name = name or f"{_slug(source_uri)}-{digest.hexdigest()[:8]}"
    key = layout.manifest(name)
    try:
        store.create_from(key, manifest)
    except ObjectExistsError:
        raise InputError(f'there is a drop "{name}" already; give this one another --name') from None
    if segments.is_worth_it(number, 1):
        _name_rows(table, key, folder / "named.parquet")
        covers = [Covered(key=key, sha256=digest.hexdigest(), size=manifest.stat().st_size)]
        segments.write(store, covers, {"samples": folder / "named.parquet"}, number)
    looked_up.compact(store)
    return replace(done, name=name)


def _name_rows(path: Path, key: str, to: Path) -> None:
    """Copy a table of samples, now that the manifest has its name."""
    place = SAMPLES.get_field_index("key")
    with pq.ParquetFile(path) as file, segments.samples_writer(to) as writer:
        for index in range(file.num_row_groups):
            group = file.read_row_group(index)
            keys = pa.repeat(pa.scalar(key), group.num_rows)
            writer.write_table(group.set_column(place, SAMPLES.field("key"), keys))


def _repeated_lines(found: _Found, source_uri: str) -> pa.Array:
    """Return the lines about samples that an earlier line has.

    Raises:
        InputError: two lines give one id two uris, or one sample two labels.
    """
    ids = found.ids.take(pc.sort_indices(found.ids)) if found.rows > 1 else found.ids
    again = ids.filter(pa.array(repeats(ids))).combine_chunks()
    lines = []
    if len(again):
        first: dict[str, Sample] = {}
        for batch in found.batches():
            for line, sample in _rows(batch.filter(pc.is_in(batch["sample_id"], value_set=again))):
                where = source_uri.rsplit("/", 1)[-1]
                if not add_sample(first, sample, f"{where} line {line}"):
                    lines.append(line)
                    _check_same_label(first[sample.sample_id], sample, source_uri)
    return pa.array(lines, pa.int64())


def _check_same_label(first: Sample, sample: Sample, source_uri: str) -> None:
    if first.label != sample.label:
        raise InputError(
            f"{source_uri}: {first.uri} and {sample.uri} are the same sample, once with label {first.label!r} and "
            f"once with {sample.label!r}"
        )


def _manifest_line(sample: Sample) -> str:
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
    store: Store,
    project: Project,
    source_uri: str,
    name: str,
    samples: list[Sample],
    shares: tuple[float, float],
    progress: Callable[[int, int], None],
) -> Registered:
    """Copy samples into the project; each is named by its content, unless its manifest named it."""
    if not all(sample.uri.startswith("file:") for sample in samples):
        raise InputError(f"{source_uri} names files below a data prefix and others; register them apart")
    found = [_named_by_content(sample) for sample in samples]
    looked_up = _known(store, project, pa.chunked_array([[sample.sample_id for sample in found]], pa.string()))
    known = looked_up.samples
    batch: dict[str, Sample] = {}
    for sample in found:
        if sample.sample_id in known:
            _check_same_content(known[sample.sample_id], sample, source_uri)
        first = batch.setdefault(sample.sample_id, sample)
        _check_same_label(first, sample, source_uri)
    fresh = [with_split(sample, *shares) for key, sample in sorted(batch.items()) if key not in known]
    done = Registered(name, len(fresh), len(found) - len(fresh), "copied")
    if not fresh:
        return replace(done, name="")
    done = _write(store, source_uri, name, fresh, done, progress)
    looked_up.compact(store)
    return done


def _read_source(
    project: Project, source_uri: str, labelled: bool, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, Sample]]:
    """Yield (line or place, sample) of a manifest, or of all images below a folder or prefix."""
    classes = frozenset(project.classes)
    if source_uri.endswith(".jsonl"):
        where = source_uri.rsplit("/", 1)[-1]
        if labelled:
            raise InputError(f"--labelled is for folders; {where} says the labels itself")
        folder = source_uri.rsplit("/", 1)[0]
        lines = read_lines(ManifestLine, _source_lines(source_uri, progress), where)
        yield from read_samples(lines, folder, project.data_prefixes, classes, where)
        return
    root = normalise_folder_uri(source_uri) + "/"
    for place, (uri, _) in enumerate(list_uri(source_uri), start=1):
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
            yield place, Sample(sample_id(uri), uri, label, "train", None)


def _source_lines(source_uri: str, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    """Yield the lines of a file anywhere; tell now and then how many were read, of about how many."""
    store = open_store(source_uri.rsplit("/", 1)[0])
    key = unquote(source_uri.rsplit("/", 1)[-1]) if source_uri.startswith("file:") else source_uri.rsplit("/", 1)[-1]
    entry = store.entry(key)
    if entry is None or not entry.size:
        raise InputError(f"{source_uri}: {'missing' if entry is None else 'empty file'}")
    read = 0
    with store.open(key) as stream:
        for number, line in enumerate(bounded_lines(stream, source_uri.rsplit("/", 1)[-1]), start=1):
            read += len(line)
            yield line
            if not number % _TOLD:
                progress(number, round(number * entry.size / read))


def _named_by_content(sample: Sample) -> Sample:
    """Give a file that is to be copied an id made of its bytes, unless its manifest named it."""
    if sample.sample_id != sample_id(sample.uri):
        return sample
    digest = hashlib.sha256()
    with _local(sample).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return replace(sample, sample_id=digest.hexdigest()[:16])


def _check_same_content(known: Sample, sample: Sample, where: str) -> None:
    """Refuse a file that would be copied under an id that the project has for another file."""
    reader = SampleReader(max_bytes=1 << 32)

    def content(uri: str) -> bytes | str:
        try:
            return reader.read(uri)
        except SampleError as error:
            return str(error)

    if content(known.uri) != content(sample.uri):
        raise InputError(
            f'{where}: id "{sample.sample_id}" is already the sample {known.uri}; {sample.uri} is another file'
        )


def _local(sample: Sample) -> Path:
    path = path_of(sample.uri)
    if not path.is_file():
        raise InputError(f"{sample.uri} is not a file")
    return path


def _write(
    store: Store,
    source_uri: str,
    name: str,
    fresh: list[Sample],
    done: Registered,
    progress: Callable[[int, int], None],
) -> Registered:
    lines = [
        ManifestLine(
            uri=_COPIED + _file_name(sample),
            id=sample.sample_id,
            label=sample.label,
            split=None if sample.split == "train" else sample.split,  # type: ignore[arg-type]
            group=sample.group,
        )
        for sample in fresh
    ]
    manifest = b"".join(line.json_line() for line in lines)
    name = name or f"{_slug(source_uri)}-{hashlib.sha256(manifest).hexdigest()[:8]}"
    if store.entry(layout.manifest(name)) is not None:
        raise InputError(f'there is a drop "{name}" already; give this one another --name')
    paths = [_local(sample) for sample in fresh]
    for place, (sample, path) in enumerate(zip(fresh, paths, strict=True), start=1):
        store.create_from(layout.drop(name) + _COPIED + _file_name(sample), path)
        progress(place, len(fresh))
    try:
        store.create_same(layout.manifest(name), manifest)
    except ObjectExistsError:
        raise InputError(f'there is a drop "{name}" already; give this one another --name') from None
    return replace(done, name=name)


def _file_name(sample: Sample) -> str:
    """Return the name of a copied file: its id, and the suffix that says what it is."""
    return sample.sample_id + Path(path_of(sample.uri)).suffix.lower()


def _slug(source_uri: str) -> str:
    last = source_uri.rstrip("/").removesuffix(".jsonl").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-").lower()[:60] or "drop"
