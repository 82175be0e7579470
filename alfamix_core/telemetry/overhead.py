"""The time that this process spends on telemetry: events, marks of attempts, metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Account:
    seconds = 0.0
    depth = 0


_account = _Account()


@contextmanager
def counted() -> Iterator[None]:
    """Count the time of the block; of nested blocks, only the outermost counts."""
    _account.depth += 1
    start = time.perf_counter()
    try:
        yield
    finally:
        _account.depth -= 1
        if not _account.depth:
            _account.seconds += time.perf_counter() - start


def seconds() -> float:
    """Return the wall-clock time of all counted blocks so far in seconds, to the microsecond."""
    return round(_account.seconds, 6)
