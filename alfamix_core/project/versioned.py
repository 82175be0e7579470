"""Records that are replaced as a whole: read with a tag, and written only over what was read."""

from typing import Generic, NamedTuple, TypeVar

from alfamix_core.errors import MissingObjectError
from alfamix_core.records.record import Record
from alfamix_core.storage import Store

R = TypeVar("R", bound=Record)


class Versioned(NamedTuple, Generic[R]):
    """A record as it was read.

    Attributes:
        value: The record.
        tag: What a replacement must bring; empty while nothing is stored.
    """

    value: R
    tag: str


def read(store: Store, key: str, absent: R) -> Versioned[R]:
    """Return the record under a key, or ``absent`` without a tag where there is none."""
    try:
        stored = store.read(key)
    except MissingObjectError:
        return Versioned(absent, "")
    return Versioned(type(absent).parse(stored.data, key), stored.tag)


def replace(store: Store, key: str, record: Record, tag: str) -> None:
    """Write a record over the one that was read with a tag, or as the first one.

    Raises:
        ObjectChangedError: Another writer replaced it.
        ObjectExistsError: Another writer made the first one.
    """
    if tag:
        store.swap(key, record.document(), tag)
    else:
        store.create(key, record.document())
