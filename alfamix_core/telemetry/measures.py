"""The measurements that a stage takes of its own process."""

import resource
import time


class Stopwatch:
    """Measures the time since its creation."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Elapsed wall-clock time in seconds, to the millisecond."""
        return round(time.monotonic() - self._start, 3)


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
