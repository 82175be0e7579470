"""Samples as their drops delivered them: from the lines of a manifest to a table in order of their ids."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfamix_core.errors import InputError
from alfamix_core.records.manifest import ManifestLine, Split, sample_id
from alfamix_core.storage import absolute_uri, normalise_folder_uri

_SCHEMA = pa.schema([(name, pa.string()) for name in ("sample_id", "uri", "label", "split", "group")])
# parts of letters, digits and these signs, none of which begins with a dot: such a path is canonical as it stands
_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*")
_LONGEST_PLAIN = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as its drop delivered it."""

    sample_id: str
    uri: str
    label: str | None
    split: Split
    group: str | None


class Samples(Mapping[str, Sample]):
    """Samples by id, kept as a table: a million take no more than their text.

    Args:
        table: columns as the fields of ``Sample``, each id once, ascending.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.select(_SCHEMA.names)

    @staticmethod
    def of(samples: Iterable[Sample]) -> "Samples":
        """Return the samples as a table, whatever their order."""
        rows = sorted((astuple(sample) for sample in samples), key=lambda row: row[0])
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(_SCHEMA)
        return Samples(pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=_SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[str]:
        for chunk in self.table["sample_id"].chunks:
            yield from chunk.to_pylist()

    def __getitem__(self, key: str) -> Sample:
        row = self._rows[key]
        return Sample(*(column[row].as_py() for column in self.table.columns))

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self)}

    def rows_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the rows of those of the keys that there are; cheap for few keys among many samples."""
        wanted = pa.array(sorted(set(keys)), pa.string())
        if not len(wanted):
            return {}
        found = np.flatnonzero(flags(pc.is_in(self.table["sample_id"], value_set=wanted)))
        ids = self.table["sample_id"].take(pa.array(found)).to_pylist()
        return dict(zip(ids, found.tolist(), strict=True))

    def ids_of_uris(self, uris: Iterable[str]) -> dict[str, str]:
        """Return, by uri, the ids of those of the uris that there are."""
        found = self.table.filter(pc.is_in(self.table["uri"], value_set=pa.array(sorted(set(uris)), pa.string())))
        return dict(zip(found["uri"].to_pylist(), found["sample_id"].to_pylist(), strict=True))

    def with_split(self, rows: npt.NDArray[np.bool_], split: Split) -> "Samples":
        """Return the samples with another split where a flag is set."""
        column = pc.if_else(pa.array(rows), split, self.table["split"])
        return Samples(self.table.set_column(_SCHEMA.names.index("split"), "split", column))


def flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return a column of true and false as an array; null is false."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def resolver(folder_uri: str, prefixes: Sequence[str]) -> Callable[[str], str]:
    """Return ``storage.absolute_uri`` for one folder, several times as fast where a uri is plain."""
    folder = normalise_folder_uri(folder_uri)
    folder = folder if folder.endswith("/") else folder + "/"
    starts = tuple(_canonical(prefixes))

    def resolve(uri: str) -> str:
        if len(uri) <= _LONGEST_PLAIN:
            if _PLAIN.fullmatch(uri):
                return folder + uri
            for start in starts:
                if uri.startswith(start) and _PLAIN.fullmatch(uri, len(start)):
                    return uri
        return absolute_uri(uri, folder_uri, prefixes)

    return resolve


def _canonical(prefixes: Sequence[str]) -> Iterator[str]:
    """Yield the prefixes with their slash; one that is no uri has its error where a uri is compared with it."""
    for prefix in prefixes:
        with suppress(InputError):
            start = normalise_folder_uri(prefix)
            yield start if start.endswith("/") else start + "/"


def read_samples(
    lines: Iterator[tuple[int, ManifestLine]],
    folder_uri: str,
    prefixes: Sequence[str],
    classes: frozenset[str],
    where: str,
) -> Iterator[tuple[int, Sample]]:
    """Yield (line number, sample) of a manifest, its uris made absolute, its labels checked.

    Args:
        lines: of the manifest.
        folder_uri: of the manifest's folder, to which its uris are relative.
        prefixes: below which it may point elsewhere.
        classes: of the project.
        where: what the user calls the manifest.

    Raises:
        InputError: a uri outside the folder and the prefixes, or a label outside the classes, with its line.
    """
    resolve = resolver(folder_uri, prefixes)
    for number, line in lines:
        try:
            uri = resolve(line.uri)
        except InputError as error:
            raise InputError(f"{where} line {number}: {error}") from None
        if line.label is not None:
            check_class(line.label, classes, f"{where} line {number}")
        yield number, Sample(line.id or sample_id(uri), uri, line.label, line.split or "train", line.group)


def add_sample(samples: dict[str, Sample], sample: Sample, where: str) -> bool:
    """Add a sample; return whether it is new.

    Raises:
        InputError: its id is known with another uri.
    """
    known = samples.setdefault(sample.sample_id, sample)
    check_same(known, sample, where)
    return known is sample


def check_same(known: Sample, sample: Sample, where: str) -> None:
    """Refuse a sample whose id is known with another uri.

    Raises:
        InputError: with the place and both uris.
    """
    if known.uri != sample.uri:
        raise InputError(
            f'{where}: id "{sample.sample_id}" is already the sample {known.uri}; it cannot be {sample.uri} as well'
        )


def check_class(label: str, classes: frozenset[str], where: str) -> None:
    """Refuse a label that is not a class of the project.

    Raises:
        InputError: with the place and the classes.
    """
    if label not in classes:
        raise InputError(f'{where}: label "{label}" is not a class; the classes are {named(classes)}')


def named(classes: frozenset[str]) -> str:
    """Return class names for a message: in order, the first twelve of many."""
    names = sorted(classes)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def with_split(sample: Sample, test_share: float, val_share: float) -> Sample:
    """Give a labelled sample of the train split its split, by hash of its id: the same for ever."""
    if sample.label is None or sample.split != "train":
        return sample
    place = int.from_bytes(hashlib.sha256(f"split/{sample.sample_id}".encode()).digest()[:6], "big") / 2**48
    split: Split = "test" if place < test_share else "val" if place < test_share + val_share else "train"
    return replace(sample, split=split)
