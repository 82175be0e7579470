"""lock.json: which run may write to the project now."""

from pydantic import AwareDatetime, Field

from alfamix_core.records.record import Record


class Holder(Record):
    """The run that holds the lock, and the process that drives it where that is a local one."""

    run_id: str
    host: str = Field("", description="name of the driving process's host; empty on a cluster")
    boot: str = Field("", description="id of that host's boot, which every container on it sees")
    namespace: str = Field("", description="PID namespace in which the pid counts; empty where it is unknown")
    pid: int = Field(0, description="the driving process; 0 on a cluster")
    started: str = Field("", description="when that process began, in the kernel's ticks: pids come back")


class Lock(Record):
    """The whole of lock.json; released when it has no holder."""

    revision: int = Field(ge=1)
    fence: int = Field(ge=0, description="raised by each take-over and each new run")
    holder: Holder | None = None
    until: AwareDatetime | None = Field(None, description="after which anybody may take it over")
