"""What a person takes back about samples: withdraw them for good, or release them from quarantine."""

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime

from alfamix_core.errors import InputError
from alfamix_core.project import layout, rounds
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.storage import Store


def withdraw(store: Store, lines: Iterable[str], reason: str, now: datetime, where: str) -> tuple[str, int]:
    """Withdraw samples: from the next round on they are in no pool and no training set, permanently.

    Args:
        store: the project.
        lines: ids or absolute uris of samples, one a line; blank ones are skipped.
        reason: the reason in the user's words; may be empty.
        now: the moment, UTC.
        where: what the user calls the list.

    Returns:
        The name of the batch, empty when all were withdrawn before, and how many samples it withdraws.

    Raises:
        InputError: a line names no sample of the project; nothing was written.
        LockedError: a run holds the project.
    """
    texts = [(number, text) for number, line in enumerate(lines, start=1) if (text := line.strip())]
    if not texts:
        raise InputError(f"{where} names no sample")
    project = rounds.read_settings(store)
    with open_ledger(store, project, now) as ledger:
        ids, before = ledger.ids_of([text for _, text in texts]), ledger.withdrawn()
    for number, text in texts:
        if text not in ids:
            raise InputError(f'{where} line {number}: "{text}" is neither the id nor the uri of a sample')
    keys = sorted(set(ids.values()) - before)
    if not keys:
        return "", 0
    data = b"".join(Withdrawn(sample_id=key, reason=reason, time=now).json_line() for key in keys)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", where.rsplit("/", 1)[-1]).strip("-").lower()[:60] or "list"
    batch = f"{slug}-{hashlib.sha256(data).hexdigest()[:8]}"
    with rounds.holding(store, "withdraw", now):
        store.create_same(layout.withdrawn(batch), data)
    return batch, len(keys)


def release(store: Store, ids: Iterable[str], now: datetime) -> int:
    """Let repaired samples out of the quarantine; without ids, all of them. One that is still bad comes back.

    Returns:
        How many samples may be read again.

    Raises:
        InputError: a sample is not in quarantine; nothing was written.
    """
    project = rounds.read_settings(store)
    with open_ledger(store, project, now) as ledger:
        quarantined = ledger.quarantined()
    wanted = set(ids)
    for key in sorted(wanted - quarantined.keys()):
        raise InputError(f'sample "{key}" is not in quarantine')
    keys = sorted(wanted or quarantined)
    if not keys:
        return 0
    data = b"".join(Released(sample_id=key, round=quarantined[key], time=now).json_line() for key in keys)
    last = max(quarantined[key] for key in keys)
    store.create_same(layout.released(f"{last:06d}-{hashlib.sha256(data).hexdigest()[:8]}"), data)
    return len(keys)
