"""Decide whether a round starts: resume the unfinished one, plan a new one, or stay idle."""

from datetime import UTC, datetime

from alfamix_core.errors import LockedError
from alfamix_core.project import planning
from alfamix_core.project.clock import check_clock
from alfamix_core.records.lock import Holder
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import emit

IDLE = "idle"


def run(project_uri: str, holder: Holder, force: bool = False, fresh: bool = False) -> str:
    """Return the key of the round that this run works on, or ``idle``.

    Args:
        project_uri: URI of the project.
        holder: Identity of this run, which takes the project's lock.
        force: Whether to plan a round even if too little is new.
        fresh: Whether a round that is resumed computes everything again, whatever is cached.

    Raises:
        InputError: project.json or a table of the ledger cannot be used, or the clock is wrong; no round was planned.
    """
    store = open_store(project_uri)
    now = datetime.now(UTC)
    check_clock(store, now)
    try:
        record, plan = planning.begin(store, holder, now, force, fresh)
    except LockedError as error:
        emit("round", number=0, state="refused", text=str(error))
        return IDLE
    if record is None:
        emit("round", number=0, state="idle", text=plan.text)
        return IDLE
    state = "resumed" if plan.decision == "resume" else "planned"
    emit("round", number=record.number, state=state, text=plan.text)
    return record.key
