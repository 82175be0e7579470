"""Decide whether a round starts: resume the unfinished one, plan a new one, or stay idle."""

from datetime import UTC, datetime

from alfamix_core.errors import LockedError
from alfamix_core.project import rounds
from alfamix_core.project.clock import check_clock
from alfamix_core.records.lock import Holder
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import emit

IDLE = "idle"


def run(project_uri: str, holder: Holder, force: bool = False) -> str:
    """Return the key of the round that this run works on, or ``idle``.

    Args:
        project_uri: of the project.
        holder: this run, which will hold the project's lock.
        force: plan a round even if too little is new.

    Raises:
        InputError: project.json, a manifest, label batch or queue cannot be used, or the clock is wrong; nothing was
            written.
    """
    store = open_store(project_uri)
    now = datetime.now(UTC)
    check_clock(store, now)
    try:
        record, plan = rounds.begin(store, holder, now, force)
    except LockedError as error:
        emit("round", number=0, state="refused", text=str(error))
        return IDLE
    if record is None:
        emit("round", number=0, state="idle", text=plan.text)
        return IDLE
    state = "resumed" if plan.decision == "resume" else "planned"
    emit("round", number=record.number, state=state, text=plan.text)
    return record.key
