"""The files that are in the inbox now, and the kind of each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from alfamix_core.errors import LinkError
from alfamix_core.project import layout
from alfamix_core.storage import Entry, Store, is_valid_key, shown

Kind = Literal["samples", "events", "withdrawn", "released"]

_LISTED: dict[str, Kind] = {layout.LABELS: "events", layout.WITHDRAWN: "withdrawn", layout.RELEASED: "released"}
_REQUESTS = 16  # manifests looked up at a time


@dataclass(frozen=True)
class InboxFile:
    """A file as the store lists it; ``tag`` is equal as long as the file is unchanged."""

    key: str
    kind: Kind
    size: int
    tag: str


@dataclass(frozen=True)
class Listing:
    """The inbox at one moment.

    Attributes:
        files: Files in the order of their keys' UTF-8 bytes.
        odd: Name, fit to be shown, and reason of what is in the inbox and is never read: names that are not valid
            keys, and what lies in drops/ itself.
    """

    files: tuple[InboxFile, ...]
    odd: tuple[tuple[str, str], ...] = ()


def list_inbox(store: Store) -> Listing:
    """Return the delivered files; a drop without its manifest is not delivered yet."""
    odd: list[str] = []
    files = [*manifests(store, odd)]
    for prefix, kind in _LISTED.items():
        files += [_file(entry, kind) for entry in store.list(prefix, odd)]
    reasons = tuple((shown(name), _why_unread(name)) for name in sorted(odd))
    return Listing(tuple(sorted(files, key=lambda file: file.key.encode())), reasons)


def _why_unread(name: str) -> str:
    if not is_valid_key(name):
        return f"cannot be read: {name!a} is not a valid name here"
    return (
        f"cannot be read: {shown(name)} must be a folder of its own with a {layout.MANIFEST_FILE}, not a file or link"
    )


def manifests(store: Store, odd: list[str] | None = None) -> Iterator[InboxFile]:
    """Yield each drop's manifest without listing its folder, which may hold any number of pictures.

    ``odd`` receives the names of what lies in drops/ and can be no drop.
    """
    keys = [f"{layout.DROPS}{name}/{layout.MANIFEST_FILE}" for name in store.folders(layout.DROPS, odd)]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from (_file(entry, "samples") for entry in pool.map(partial(_entry, store), keys) if entry is not None)


def _entry(store: Store, key: str) -> Entry | None:
    """Return a manifest as it is listed; one that is a symbolic link is set aside when it is read."""
    try:
        return store.entry(key)
    except LinkError:
        return Entry(key, 0, "link")


def _file(entry: Entry, kind: Kind) -> InboxFile:
    return InboxFile(entry.key, kind, entry.size, entry.tag)
