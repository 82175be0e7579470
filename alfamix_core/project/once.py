"""What a round writes once: an interrupted run's word stands, and a resumed run goes by it."""

from alfamix_core.errors import ObjectExistsError
from alfamix_core.storage import Store


def write_once(store: Store, key: str, data: bytes) -> bytes:
    """Write an object of a round unless an earlier run of that round has; return what stands."""
    try:
        store.create(key, data)
    except ObjectExistsError:
        return store.read(key).data
    return data
