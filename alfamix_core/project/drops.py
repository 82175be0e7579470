"""Drops: deliveries of samples. Files first, the manifest last: its presence says that the drop is complete."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from alfamix_core.errors import InputError, ObjectExistsError, SampleError
from alfamix_core.project import layout, rounds
from alfamix_core.project.ledger import Sample, add_sample, derive, freeze, named, read_samples
from alfamix_core.records.manifest import ManifestLine, Split, sample_id
from alfamix_core.records.project import Project
from alfamix_core.records.record import read_lines
from alfamix_core.storage import SampleReader, Store, is_below, list_uri, normalise_folder_uri, path_of

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_COPIED = "files/"


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
    known = derive(store, project, freeze(store), datetime.now(UTC)).samples
    found = list(_read_source(project, source_uri, labelled))
    if not found:
        raise InputError(f"{source_uri} has nothing to register: no sample in it")
    refer = all(_may_be_referred(project, sample.uri) for sample in found)
    if not refer:
        found = [_named_by_content(project, sample) for sample in found]
    batch: dict[str, Sample] = {}
    for sample in found:
        if sample.sample_id in known:
            if refer:
                add_sample(known, sample, source_uri)
            else:
                _check_same_content(known[sample.sample_id], sample, source_uri)
        first = batch.setdefault(sample.sample_id, sample)
        if first.label != sample.label:
            raise InputError(
                f"{source_uri}: {first.uri} and {sample.uri} are the same sample, once with label {first.label!r} and "
                f"once with {sample.label!r}"
            )
    fresh = [_with_split(sample, test_share, val_share) for key, sample in sorted(batch.items()) if key not in known]
    how = "referred to in place" if refer else "copied"
    if not fresh:
        return Registered("", 0, len(found), how)
    return _write(
        store, source_uri, name, fresh, refer, Registered(name, len(fresh), len(found) - len(fresh), how), progress
    )


def _read_source(project: Project, source_uri: str, labelled: bool) -> Iterator[Sample]:
    """Yield the samples of a manifest, or of all images below a folder or prefix."""
    classes = frozenset(project.classes)
    if source_uri.endswith(".jsonl"):
        where = source_uri.rsplit("/", 1)[-1]
        if labelled:
            raise InputError(f"--labelled is for folders; {where} says the labels itself")
        folder = source_uri.rsplit("/", 1)[0]
        try:
            data = SampleReader(max_bytes=1 << 32).read(source_uri)
        except SampleError as error:
            raise InputError(f"{source_uri}: {error}") from None
        lines = read_lines(ManifestLine, io.BytesIO(data), where)
        seen: dict[str, Sample] = {}
        for number, sample in read_samples(lines, folder, project.data_prefixes, classes, where):
            add_sample(seen, sample, f"{where} line {number}")
            yield sample
        return
    root = normalise_folder_uri(source_uri) + "/"
    for uri, _ in list_uri(source_uri):
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
            yield Sample(sample_id(uri), uri, label, "train", None)


def _may_be_referred(project: Project, uri: str) -> bool:
    if any(is_below(uri, prefix) for prefix in project.data_prefixes):
        return True
    if not uri.startswith("file:"):
        raise InputError(f"{uri} is under none of the project's data_prefixes; add its prefix to project.json")
    return False


def _named_by_content(project: Project, sample: Sample) -> Sample:
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


def _with_split(sample: Sample, test_share: float, val_share: float) -> Sample:
    """Give a labelled sample of the train split its split, by hash of its id: the same for ever."""
    if sample.label is None or sample.split != "train":
        return sample
    place = int.from_bytes(hashlib.sha256(f"split/{sample.sample_id}".encode()).digest()[:6], "big") / 2**48
    split: Split = "test" if place < test_share else "val" if place < test_share + val_share else "train"
    return replace(sample, split=split)


def _write(
    store: Store,
    source_uri: str,
    name: str,
    fresh: list[Sample],
    refer: bool,
    done: Registered,
    progress: Callable[[int, int], None],
) -> Registered:
    lines = [
        ManifestLine(
            uri=sample.uri if refer else _COPIED + _file_name(sample),
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
    if not refer:
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
