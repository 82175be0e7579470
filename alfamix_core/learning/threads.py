"""How torch's threads on the CPU wait for work: a moment awake, then asleep."""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
"""Environment of a process that computes, to be set before it imports torch.

By default a thread without work spins for milliseconds and takes the core that another stage needs; on a busy machine
that costs minutes. One that sleeps at once is woken so late that short operations gain nothing from a second thread.
5,000 turns are some ten microseconds.
"""
