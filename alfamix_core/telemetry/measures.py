"""What a stage measures of its own process."""

import resource
import time


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Elapsed wall-clock time, seconds, to the millisecond."""
        return round(time.monotonic() - self._start, 3)


def peak_memory_bytes() -> int:
    """Return the largest resident size that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
