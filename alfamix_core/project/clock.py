"""Runs and store agree about the time, because leases, deadlines and the order of answers depend on it."""

import time
from datetime import datetime, timedelta

from alfamix_core.errors import InputError
from alfamix_core.storage import Store

TOLERANCE = timedelta(minutes=1)


def check_clock(store: Store, now: datetime) -> None:
    """Refuse to start where this machine's clock and the store's differ.

    Args:
        store: asked once; one that has no clock of its own passes.
        now: the time by this machine's clock, just read.

    Raises:
        InputError: they differ by more than a minute.
    """
    begun = time.monotonic()
    told = store.clock()
    if told is None:
        return
    answered = now + timedelta(seconds=time.monotonic() - begun)  # the store answered between now and then
    if told < now - TOLERANCE or told > answered + TOLERANCE:
        raise InputError(
            f"the clock of this machine says {now:%Y-%m-%d %H:%M:%S} UTC and that of {store.uri} "
            f"{told:%Y-%m-%d %H:%M:%S} UTC; they must not differ by more than {TOLERANCE.seconds} s: set the wrong one "
            f"right, best by NTP"
        )
