"""Check that runs and store agree on the time: locks, deadlines and the order of answers depend on it."""

import time
from datetime import datetime, timedelta

from alfamix_core.errors import InputError
from alfamix_core.storage import Store

TOLERANCE = timedelta(minutes=1)


def check_clock(store: Store, now: datetime) -> None:
    """Refuse to start where this machine's clock and the store's differ.

    Args:
        store: Store to ask once; one without a clock passes.
        now: Time by this machine's clock, just read.

    Raises:
        InputError: They differ by more than a minute.
    """
    begun = time.monotonic()
    answer = store.clock()
    if answer is None:
        return
    answered = now + timedelta(seconds=time.monotonic() - begun)  # the store answered between now and then
    if answer < now - TOLERANCE or answer > answered + TOLERANCE:
        raise InputError(
            f"the clock of this machine says {now:%Y-%m-%d %H:%M:%S} UTC and that of {store.uri} "
            f"{answer:%Y-%m-%d %H:%M:%S} UTC; they must not differ by more than {TOLERANCE.seconds} s: correct "
            "the wrong one, preferably by NTP"
        )
