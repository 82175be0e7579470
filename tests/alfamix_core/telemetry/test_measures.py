import time

from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes


def test_seconds_pass():
    watch = Stopwatch()
    time.sleep(0.02)
    assert 0.02 <= watch.seconds < 5
    assert watch.seconds == round(watch.seconds, 3)


def test_peak_memory_is_in_bytes_and_never_falls():
    before = peak_memory_bytes()
    block = bytearray(64 * 2**20)
    after = peak_memory_bytes()
    del block
    assert before > 2**20
    assert peak_memory_bytes() >= after >= before
