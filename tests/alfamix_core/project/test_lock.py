"""One run at a time, and a dead one is no hindrance."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from alfamix_core.errors import LockedError, StorageError
from alfamix_core.project import layout, lock
from alfamix_core.project.lock import acquire, blocked_by, read, release, renew, require, unlock
from alfamix_core.records.lock import Holder, Lock
from alfamix_core.storage import FolderStore, path_of

ROOT = Path(__file__).parents[3]
HOUR = timedelta(hours=1)


@pytest.fixture
def living():
    """Run a process that lives until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_run_takes_the_lock_renews_it_and_keeps_its_fence(store, holder, noon):
    first = acquire(store, holder("a"), noon, noon + HOUR)
    again = acquire(store, holder("a"), noon + HOUR / 2, noon + 2 * HOUR)
    assert (first.fence, first.revision, again.fence, again.revision) == (1, 1, 1, 2)
    assert require(store, "a", noon + HOUR).until == noon + 2 * HOUR


def test_another_run_is_refused_and_told_who_holds_it_and_until_when(place, holder, noon):
    acquire(place, holder("a"), noon, noon + HOUR)
    before = place.read(layout.LOCK)
    with pytest.raises(LockedError) as refused:
        acquire(place, holder("b"), noon, noon + HOUR)
    assert str(refused.value) == (
        "the project is locked by run a until 2026-03-01 13:00:00 UTC; wait for it, or run `alfamix unlock` if it is "
        "dead"
    )
    assert place.read(layout.LOCK) == before


def test_a_folder_in_the_place_of_the_lock_is_named(place, holder, noon):
    if place.uri.startswith("s3:"):
        pytest.skip("a bucket has no folders")
    (path_of(place.uri) / layout.LOCK).mkdir(parents=True)
    with pytest.raises(
        StorageError, match=r"^lock\.json can neither be read nor made: something else is in its place$"
    ):
        acquire(place, holder("a"), noon, noon + HOUR)


def test_after_the_deadline_anybody_takes_it_over_and_the_fence_rises(place, holder, noon):
    acquire(place, holder("a"), noon, noon + HOUR)
    assert acquire(place, holder("b"), noon + HOUR, noon + 2 * HOUR).fence == 2


def test_a_run_that_was_taken_over_may_not_write(store, holder, noon):
    acquire(store, holder("a"), noon, noon + HOUR)
    acquire(store, holder("b"), noon + HOUR, noon + 2 * HOUR)
    with pytest.raises(LockedError, match=r"^run a no longer holds the project: run b took it over$"):
        require(store, "a", noon + HOUR)
    assert not release(store, "a")
    assert require(store, "b", noon + HOUR).fence == 2


def test_a_run_past_its_own_deadline_may_not_write_even_if_nobody_came(place, holder, noon):
    acquire(place, holder("a"), noon, noon + HOUR)
    require(place, "a", noon + HOUR - timedelta(seconds=1))
    with pytest.raises(LockedError, match="run a is past its deadline"):
        require(place, "a", noon + HOUR)


def test_a_released_lock_is_free_and_the_next_run_has_a_higher_fence(store, holder, noon):
    acquire(store, holder("a"), noon, noon + HOUR)
    assert release(store, "a")
    assert not release(store, "a")
    with pytest.raises(LockedError, match="run a no longer holds the project: unlocked"):
        require(store, "a", noon)
    assert acquire(store, holder("b"), noon, noon + HOUR).fence == 2


def test_a_renewed_lock_ends_later_and_never_earlier_and_keeps_its_fence(store, holder, noon):
    acquire(store, holder("a"), noon, noon + HOUR)
    renewed = renew(store, "a", noon, noon + 2 * HOUR)
    assert (renewed.until, renewed.fence, renewed.revision) == (noon + 2 * HOUR, 1, 2)
    assert renew(store, "a", noon, noon + HOUR) == renewed == read(store)[0]
    with pytest.raises(LockedError, match="run b no longer holds the project: run a took it over"):
        renew(store, "b", noon, noon + 9 * HOUR)
    with pytest.raises(LockedError, match="run a is past its deadline"):
        renew(store, "a", noon + 2 * HOUR, noon + 9 * HOUR)


def test_unlocking_takes_it_from_its_holder(place, holder, noon):
    assert unlock(place) is None
    acquire(place, holder("a"), noon, noon + HOUR)
    assert unlock(place).holder.run_id == "a"
    assert unlock(place) is None
    with pytest.raises(LockedError):
        require(place, "a", noon)


def test_without_a_lock_no_run_holds_the_project(place, noon):
    assert (read(place).value.holder, read(place).tag) == (None, "")
    assert not release(place, "a")
    with pytest.raises(LockedError, match="unlocked"):
        require(place, "a", noon)


def test_a_living_process_of_this_host_keeps_the_lock(place, holder, noon, living):
    acquire(place, lock.process("a", living.pid), noon, noon + HOUR)
    with pytest.raises(LockedError, match=rf"locked by run a \(process {living.pid} on "):
        acquire(place, holder("b"), noon, noon + HOUR)


def test_a_dead_process_of_this_host_is_taken_over_at_once(place, holder, noon, living):
    acquire(place, lock.process("a", living.pid), noon, noon + HOUR)
    living.kill()  # not waited for: a zombie is dead as well
    deadline = time.monotonic() + 10
    while blocked_by(read(place)[0], "b", noon) and time.monotonic() < deadline:
        time.sleep(0.01)
    living.wait()
    assert blocked_by(read(place)[0], "b", noon) == ""
    assert acquire(place, holder("b"), noon, noon + HOUR).fence == 2


def test_a_pid_that_came_back_as_another_process_is_dead(place, holder, noon, living):
    earlier = lock.process("a", living.pid).model_copy(update={"started": "12"})
    acquire(place, earlier, noon, noon + HOUR)
    assert acquire(place, holder("b"), noon, noon + HOUR).fence == 2


def test_a_process_of_another_host_is_believed_until_its_deadline(place, holder, noon):
    acquire(place, Holder(run_id="a", host="elsewhere", pid=1, started="1"), noon, noon + HOUR)
    with pytest.raises(LockedError):
        acquire(place, holder("b"), noon, noon + HOUR)


def test_on_a_cluster_the_holder_has_no_process(monkeypatch):
    monkeypatch.delenv(lock.DRIVER, raising=False)
    assert lock.driver("a") == Holder(run_id="a")


def test_a_process_names_itself_for_containers_that_cannot_see_it(monkeypatch):
    monkeypatch.setenv(lock.DRIVER, lock.this_process())
    assert lock.driver("a") == lock.process("a", os.getpid())
    assert not lock.is_gone(lock.this_process())
    pid, _, boot, namespace, host = lock.this_process().split()
    assert lock.is_gone(f"{pid} 12 {boot} {namespace} {host}")
    assert not lock.is_gone(f"{pid} 12 {boot} {namespace} elsewhere")


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_only_who_shares_host_boot_and_pid_namespace_takes_a_process_for_dead(place, holder, noon, field):
    dead = lock.process("a", os.getpid()).model_copy(update={"started": "12"})
    assert blocked_by(Lock(revision=1, fence=1, holder=dead, until=noon + HOUR), "b", noon) == ""
    for other in ("elsewhere", ""):
        acquire(place, dead.model_copy(update={field: other}), noon, noon + HOUR)
        with pytest.raises(LockedError, match="locked by run a"):
            acquire(place, holder("b"), noon, noon + HOUR)


LIVE = """
import os, sys
from datetime import UTC, datetime, timedelta
from alfamix_core.errors import LockedError
from alfamix_core.project import lock
from alfamix_core.storage import open_store

store, now = open_store(sys.argv[1]), datetime.now(UTC)
try:
    lock.acquire(store, lock.process(sys.argv[2], os.getpid()), now, now + timedelta(hours=1))
except LockedError as error:
    print(error)
else:
    print("held", lock.read(store)[0].holder.host, lock.is_alive(lock.read(store)[0], now), flush=True)
    input()
"""
NAMESPACES = ["unshare", "--pid", "--fork", "--kill-child", "--uts"]


def can_unshare():
    return shutil.which("unshare") and subprocess.run([*NAMESPACES, "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="making a PID namespace needs root and util-linux")
@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["own /proc", "the host's /proc"])
def test_a_second_container_with_the_same_host_name_is_refused_while_the_first_lives(place, noon, proc):
    """Each sees that no process of the first's pid began when the first says; neither may conclude anything."""
    command = [*NAMESPACES, *proc, sys.executable, "-c", LIVE, place.uri]
    refused = re.compile(rf"the project is locked by run first \(process \d+ on {socket.gethostname()}\) until ")
    with subprocess.Popen([*command, "first"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline().decode() == f"held {socket.gethostname()} True\n"
        for other in (command, command[-4:]):
            second = subprocess.run([*other, "second"], cwd=ROOT, capture_output=True, text=True, check=True, input="")
            assert refused.match(second.stdout), second
        assert read(place)[0].holder.run_id == "first"
        first.kill()


RACE = """
import os, sys, time
from datetime import UTC, datetime, timedelta
from alfamix_core.errors import LockedError
from alfamix_core.project.lock import acquire
from alfamix_core.records.lock import Holder
from alfamix_core.storage import FolderStore
from alfamix_core.storage import open_store

start, now = time.monotonic() + 0.2, datetime.now(UTC)
for number in range(8):
    if os.fork() == 0:
        store = open_store(sys.argv[1])
        time.sleep(start - time.monotonic())
        try:
            said = str(acquire(store, Holder(run_id=f"run-{number}"), now, now + timedelta(hours=1)).fence)
        except LockedError:
            said = "refused"
        os.write(1, f"run-{number} {said}\\n".encode())
        os._exit(0)
for _ in range(8):
    assert os.wait()[1] == 0
"""


@pytest.mark.parametrize("held", [False, True])
def test_of_eight_processes_that_start_at_once_one_gets_the_lock(place, holder, noon, held):
    if held:  # by a run whose deadline has passed
        acquire(place, holder("old"), noon - 2 * HOUR, noon - HOUR)
    race = subprocess.run([sys.executable, "-c", RACE, place.uri], cwd=ROOT, capture_output=True, text=True, check=True)
    said = dict(line.split() for line in race.stdout.splitlines())
    assert sorted(said.values()) == ["2" if held else "1"] + ["refused"] * 7
    assert said[read(place)[0].holder.run_id] != "refused"


class Overtaken(FolderStore):
    """A folder in which another run writes between a run's reading of the lock and its swap."""

    def __init__(self, root, other):
        super().__init__(root)
        self._other = other

    def swap(self, key, data, tag):
        self._other()
        return super().swap(key, data, tag)


def test_a_run_that_is_beaten_by_a_moment_is_told_by_whom(tmp_path, holder, noon):
    plain = FolderStore(tmp_path)
    acquire(plain, holder("first"), noon, noon + HOUR)
    release(plain, "first")
    beaten = Overtaken(tmp_path, lambda: acquire(plain, holder("quicker"), noon, noon + HOUR))
    with pytest.raises(LockedError, match=r"^the project is locked by run quicker until 2026-03-01 13:00:00 UTC; "):
        acquire(beaten, holder("slower"), noon, noon + HOUR)
