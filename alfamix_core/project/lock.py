"""The lock: one run at a time writes to the project, and the next run takes over from a dead one.

A take-over raises the fence and signs the round's record again, so that a late writer's swap fails.
"""

import os
import socket
from datetime import datetime
from pathlib import Path

from alfamix_core.errors import LockedError, ObjectChangedError, ObjectExistsError, StorageError
from alfamix_core.project import layout, versioned
from alfamix_core.project.versioned import Versioned
from alfamix_core.records.lock import Holder, Lock
from alfamix_core.storage import Store

DRIVER = "ALFAMIX_DRIVER"
"""Environment variable in which a local engine names the process that drives the run, see ``this_process``."""

_PROC = Path("/proc")
_HIDDEN = "hidden"  # a process of another user, if /proc is mounted with hidepid


def this_process() -> str:
    """Describe this process for ``DRIVER``: stages in containers do not see it."""
    own = process("", os.getpid())
    return " ".join((str(own.pid), own.started or "-", own.boot or "-", own.namespace or "-", own.host))


def driver(run_id: str) -> Holder:
    """Return the holder for a run: with its process if the engine named one, without on a cluster."""
    text = os.environ.get(DRIVER, "")
    return _named(text, run_id) if text else Holder(run_id=run_id)


def is_gone(text: str) -> bool:
    """Whether a process, as ``this_process`` describes it, has visibly ended."""
    return _is_dead(_named(text, ""))


def process(run_id: str, pid: int) -> Holder:
    """Return the holder for the work of a visible process."""
    boot, namespace = _surroundings()
    started = _started(pid)
    return Holder(run_id=run_id, host=socket.gethostname(), boot=boot, namespace=namespace, pid=pid, started=started)


def _named(text: str, run_id: str) -> Holder:
    pid, started, boot, namespace, host = ("" if part == "-" else part for part in text.split(maxsplit=4))
    return Holder(run_id=run_id, host=host, boot=boot, namespace=namespace, pid=int(pid), started=started)


def read(store: Store) -> Versioned[Lock]:
    """Return the lock; before the first run, a free one without a tag."""
    return versioned.read(store, layout.LOCK, Lock(revision=0, fence=0))


def blocked_by(lock: Lock, run_id: str, now: datetime) -> str:
    """Name the run that keeps another from the project; empty where none does."""
    if lock.holder is None or lock.holder.run_id == run_id or not is_alive(lock, now):
        return ""
    holder = lock.holder
    process = f" (process {holder.pid} on {holder.host})" if holder.pid else ""
    return (
        f"the project is locked by run {holder.run_id}{process} until {lock.until:%Y-%m-%d %H:%M:%S} UTC; "
        "wait for it, or run `alfamix unlock` if it is dead"
    )


def left_by(lock: Lock, now: datetime) -> str:
    """Name the run that the lock still belongs to although it is dead or past its deadline; empty where none does."""
    if lock.holder is None or is_alive(lock, now):
        return ""
    return f"run {lock.holder.run_id} holds the project and is dead or past its deadline; the next run takes it over"


def is_alive(lock: Lock, now: datetime) -> bool:
    """Whether the holder may still write: its deadline is ahead, and its process has not visibly ended."""
    return lock.holder is not None and lock.until is not None and now < lock.until and not _is_dead(lock.holder)


def acquire(store: Store, holder: Holder, now: datetime, until: datetime) -> Lock:
    """Take the lock for a run.

    Returns:
        The lock as written; its fence is higher than any before it, but the same when this run holds it already.

    Raises:
        LockedError: Another run is alive, or was quicker.
        StorageError: What stands under the lock's key is no file.
    """
    current, tag = read(store)
    if reason := blocked_by(current, holder.run_id, now):
        raise LockedError(reason)
    is_new = current.holder is None or current.holder.run_id != holder.run_id
    lock = Lock(revision=current.revision + 1, fence=current.fence + is_new, holder=holder, until=until)
    try:
        versioned.replace(store, layout.LOCK, lock, tag)
    except (ObjectChangedError, ObjectExistsError):
        current, tag = read(store)
        if not tag:
            raise StorageError(f"{layout.LOCK} can neither be read nor made: something else is in its place") from None
        reason = blocked_by(current, holder.run_id, now)
        raise LockedError(reason or "another run took the project's lock a moment ago") from None
    return lock


def require(store: Store, run_id: str, now: datetime) -> Lock:
    """Return the lock, which the run must hold to write to the project.

    Raises:
        LockedError: It was taken over or released.
    """
    return _own(store, run_id, now).value


def _own(store: Store, run_id: str, now: datetime) -> Versioned[Lock]:
    current = read(store)
    holder, until = current.value.holder, current.value.until
    if holder is None or holder.run_id != run_id:
        now_holds = f"run {holder.run_id} took it over" if holder else "unlocked"
        raise LockedError(f"run {run_id} no longer holds the project: {now_holds}")
    if until is None or now >= until:
        raise LockedError(f"run {run_id} is past its deadline {until}; run the round again")
    return current


def renew(store: Store, run_id: str, now: datetime, until: datetime) -> Lock:
    """Move the deadline of the lock that the run holds; never to an earlier time.

    Returns:
        The lock as it is now.

    Raises:
        LockedError: It was taken over or released, or is taken over at this moment.
    """
    lock, tag = _own(store, run_id, now)
    if lock.until is not None and until <= lock.until:
        return lock
    renewed = lock.model_copy(update={"revision": lock.revision + 1, "until": until})
    try:
        versioned.replace(store, layout.LOCK, renewed, tag)
    except ObjectChangedError:
        raise LockedError(f"run {run_id} no longer holds the project") from None
    return renewed


def release(store: Store, run_id: str) -> bool:
    """Release the lock if this run holds it; return whether it did. Releasing it twice is harmless."""
    lock, tag = read(store)
    return lock.holder is not None and lock.holder.run_id == run_id and _release(store, lock, tag)


def free_dead(store: Store, now: datetime) -> bool:
    """Release the lock for a run that is dead or past its deadline; return whether there was one."""
    lock, tag = read(store)
    return bool(left_by(lock, now)) and _release(store, lock, tag)


def unlock(store: Store) -> Lock | None:
    """Take the lock from its holder; return what was held, or None. The next run to take it raises the fence."""
    lock, tag = read(store)
    return lock if lock.holder is not None and _release(store, lock, tag) else None


def _release(store: Store, lock: Lock, tag: str) -> bool:
    try:
        versioned.replace(store, layout.LOCK, Lock(revision=lock.revision + 1, fence=lock.fence), tag)
    except ObjectChangedError:
        return False
    return True


def _is_dead(holder: Holder) -> bool:
    """Whether a process has ended. Only its own PID namespace can tell; elsewhere it counts as alive.

    Containers on one machine share the boot id, and often the host name, but do not see each other's processes.
    """
    boot, namespace = _surroundings()
    ours = (socket.gethostname(), boot, namespace)
    seen = bool(boot and namespace and holder.pid) and (holder.host, holder.boot, holder.namespace) == ours
    return seen and _started(holder.pid) not in (holder.started or None, _HIDDEN)


def _surroundings() -> tuple[str, str]:
    """Return the boot id and this PID namespace; empty without /proc, or with that of another namespace."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        if int((_PROC / "self/stat").read_text().split(maxsplit=1)[0]) != os.getpid():
            return boot, ""
        return boot, str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return "", ""


def _started(pid: int) -> str:
    """Return a process's start in clock ticks since boot, or '' without one (field 22 of proc_pid_stat(5))."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return _HIDDEN if _answers(pid) else ""
    state, *fields = text[text.rindex(")") + 2 :].split()
    return "" if state in "ZX" else fields[18]


def _answers(pid: int) -> bool:
    """Whether a process exists, without /proc."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
