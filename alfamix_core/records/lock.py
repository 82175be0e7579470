"""lock.json: the run that may write to the project now."""

from pydantic import AwareDatetime, Field

from alfamix_core.records.record import Record


class Holder(Record):
    """The run that holds the lock, and the process that drives it if that is a local one."""

    run_id: str = Field(description="id of the run that holds the lock")
    host: str = Field("", description="name of the driving process's host; empty on a cluster")
    boot: str = Field("", description="id of that host's boot, which every container on it sees")
    namespace: str = Field("", description="PID namespace in which the pid counts; empty where it is unknown")
    pid: int = Field(0, description="id of the driving process; 0 on a cluster")
    started: str = Field("", description="start of that process, in the kernel's ticks: pids are reused")


class Lock(Record):
    """The whole of lock.json; free when it has no holder."""

    revision: int = Field(ge=0, description="number raised by each write; 0 before the first")
    fence: int = Field(ge=0, description="number raised by each take-over and each new run")
    holder: Holder | None = Field(None, description="run that holds it; None if it is free")
    until: AwareDatetime | None = Field(None, description="moment from which any run may take it over")
