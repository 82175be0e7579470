"""A sample as its drop delivers it: from a line of a manifest to an absolute uri, a split and a label that exist."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from alfamix_core.errors import InputError
from alfamix_core.records.manifest import ManifestLine, Split, sample_id
from alfamix_core.storage import absolute_uri, normalise_folder_uri

# parts of letters, digits and these signs, none of which begins with a dot: such a path is canonical as it stands
PLAIN = r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*"
_PLAIN = re.compile(PLAIN)
LONGEST_PLAIN = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as its drop delivered it."""

    sample_id: str
    uri: str
    label: str | None
    split: Split
    group: str | None


def resolver(folder_uri: str, prefixes: Sequence[str]) -> Callable[[str], str]:
    """Return ``storage.absolute_uri`` for one folder, several times as fast where a uri is plain."""
    folder = normalise_folder_uri(folder_uri)
    folder = folder if folder.endswith("/") else folder + "/"
    starts = tuple(canonical(prefixes))

    def resolve(uri: str) -> str:
        if len(uri) <= LONGEST_PLAIN:
            if _PLAIN.fullmatch(uri):
                return folder + uri
            for start in starts:
                if uri.startswith(start) and _PLAIN.fullmatch(uri, len(start)):
                    return uri
        return absolute_uri(uri, folder_uri, prefixes)

    return resolve


def canonical(prefixes: Sequence[str]) -> Iterator[str]:
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
