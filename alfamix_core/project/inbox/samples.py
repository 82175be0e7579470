"""Checks of a manifest's line: an absolute uri, a label that exists, a split."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from alfamix_core.errors import InputError
from alfamix_core.records.manifest import Split, uniform
from alfamix_core.storage import absolute_uri, normalise_folder_uri

# parts of letters, digits and these signs, none with a dot at its start: such a path is canonical as it is
PLAIN = r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*"
_PLAIN = re.compile(PLAIN)
LONGEST_PLAIN = 200

OTHER_URI = '{} line {}: id "{}" is already the sample {}; it cannot be {} as well'
"""Reason why a line is refused: file, line, id, the sample with that id, uri of the line; for SQL's ``format``, too."""


def resolver(folder_uri: str, prefixes: Sequence[str]) -> Callable[[str], str]:
    """Return ``storage.absolute_uri`` for one folder, several times as fast for a plain uri."""
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
    """Yield the prefixes with their slash; an invalid one has its error when a uri is compared with it."""
    for prefix in prefixes:
        with suppress(InputError):
            start = normalise_folder_uri(prefix)
            yield start if start.endswith("/") else start + "/"


def check_class(label: str, classes: frozenset[str], where: str) -> None:
    """Refuse a label that is not a class of the project.

    Raises:
        InputError: The message names the line and the classes.
    """
    if label not in classes:
        raise InputError(f'{where}: label "{label}" is not a class; the classes are {named(classes)}')


def named(classes: frozenset[str]) -> str:
    """Return class names for a message: in order, the first twelve of many."""
    names = sorted(classes)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def split_of(sample_id: str, test_share: float, val_share: float) -> Split:
    """Return the split of a labelled sample that has none, permanently, by hash of its id."""
    position = uniform(f"split/{sample_id}")
    return "test" if position < test_share else "val" if position < test_share + val_share else "train"
