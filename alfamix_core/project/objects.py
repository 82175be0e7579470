"""What a round produces: objects named by their SHA-256, which exist for readers only once round.json names them.

A writer that was taken over can leave orphans, but change nothing: an object's bytes always match its name, and only
the swap of round.json makes it count.
"""

import hashlib
from collections.abc import Iterable

from alfamix_core.errors import InputError, MissingObjectError, ObjectExistsError
from alfamix_core.project import layout
from alfamix_core.records.record import Record
from alfamix_core.records.round import ObjectName, Round
from alfamix_core.storage import Store


def write(store: Store, number: int, data: bytes) -> str:
    """Write an object of a round, repeatably.

    Returns:
        SHA-256, hex: the object's name below ``layout.objects``.

    Raises:
        InputError: An object of that name holds other bytes.
    """
    digest = hashlib.sha256(data).hexdigest()
    key = layout.objects(number) + digest
    try:
        store.create_same(key, data)
    except ObjectExistsError:
        raise InputError(f"{key} is not what its name says; delete it, and run the round again") from None
    return digest


def write_lines(store: Store, number: int, lines: Iterable[Record]) -> str:
    """Write records as JSON Lines; see ``write``."""
    return write(store, number, b"".join(line.json_line() for line in lines))


def key_of(record: Round, name: ObjectName) -> str:
    """Return the key of an object that a round names.

    Raises:
        InputError: The round names none.
    """
    if name not in record.objects:
        raise InputError(f"round {record.number} is {record.state} and has no {name}")
    return layout.objects(record.number) + record.objects[name]


def read(store: Store, record: Round, name: ObjectName) -> bytes:
    """Return an object that a round names.

    Raises:
        InputError: The round names none, or it was removed or changed.
    """
    key = key_of(record, name)
    try:
        data = store.read(key).data
    except MissingObjectError:
        raise InputError(f"the {name} of round {record.number} was removed: {key} is gone") from None
    if hashlib.sha256(data).hexdigest() != record.objects[name]:
        raise InputError(f"the {name} of round {record.number} was changed: {key} is not what its name says")
    return data
