"""How torch's CPU threads wait for work: they spin for a moment, then sleep."""

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
"""Environment variables of a process that computes, to be set before it imports torch.

By default, a thread without work spins for milliseconds and takes a core that another stage needs; on a busy machine
this costs minutes. A thread that sleeps immediately wakes so late that short operations gain nothing from a second
thread. 5,000 spins take about ten microseconds.
"""
