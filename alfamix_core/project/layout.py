"""Where everything is below the project's uri: the one place that spells a key.

project.json                         drops/<drop>/manifest.jsonl      labels/<batch>.jsonl
champion.json  lock.json             files/<sha256>                   withdrawn/<batch>.jsonl
rounds/<n>/round.json                rounds/<n>/objects/<sha256>      released/<batch>.jsonl
rounds/<n>/run/…                     models/<sha256>/…                ledger/<table>/…
failures/<run id>.json               decisions/<revision>.json
"""

import re

from alfamix_core.errors import InputError
from alfamix_core.records.round import folder
from alfamix_core.storage import Store

PROJECT = "project.json"
CHAMPION = "champion.json"
LOCK = "lock.json"
DROPS = "drops/"
FILES = "files/"
LABELS = "labels/"
ROUNDS = "rounds/"
RELEASED = "released/"
WITHDRAWN = "withdrawn/"
LEDGER = "ledger/"
MODELS = "models/"
DECISIONS = "decisions/"
FAILURES = "failures/"
MANIFEST_FILE = "manifest.jsonl"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ROUND = re.compile(r"[0-9]{6,}")


def name(text: str, what: str) -> str:
    """Return the text when it can name a drop or a batch.

    Raises:
        InputError: it has other characters than letters, digits, dot, hyphen and underscore.
    """
    if not _NAME.fullmatch(text):
        raise InputError(f'{what} "{text}" must be letters, digits, ".", "-" and "_", beginning with a letter or digit')
    return text


def drop(drop_name: str) -> str:
    """The folder of a drop, with its slash."""
    return f"{DROPS}{name(drop_name, 'drop')}/"


def manifest(drop_name: str) -> str:
    """The manifest of a drop; its presence says that the drop is complete."""
    return drop(drop_name) + MANIFEST_FILE


def is_manifest(key: str) -> bool:
    """Whether a key is that of a drop's manifest."""
    return key.startswith(DROPS) and key.count("/") == 2 and key.endswith("/" + MANIFEST_FILE)


def labels(batch: str) -> str:
    """A batch of label events."""
    return f"{LABELS}{name(batch, 'label batch')}.jsonl"


def withdrawn(batch: str) -> str:
    """Samples that must not be used any more."""
    return f"{WITHDRAWN}{name(batch, 'batch')}.jsonl"


def released(batch: str) -> str:
    """Samples that were repaired."""
    return f"{RELEASED}{name(batch, 'batch')}.jsonl"


def decision(revision: int) -> str:
    """How a person chose the champion that has this revision."""
    return f"{DECISIONS}{folder(revision)}.json"


def table(table_name: str) -> str:
    """The folder of a table of the ledger."""
    return f"{LEDGER}{table_name}"


def copied(sha256: str) -> str:
    """A picture that was copied into the project, named by its content: one for all drops that deliver it."""
    return f"{FILES}{sha256}"


def model(digest: str) -> str:
    """The folder of a model, with its slash."""
    return f"{MODELS}{digest}/"


def round_folder(number: int) -> str:
    """The folder of a round, with its slash."""
    return f"{ROUNDS}{folder(number)}/"


def is_round(folder_name: str) -> bool:
    """Whether a folder below rounds/ is a round's; a person may have put others there."""
    return _ROUND.fullmatch(folder_name) is not None


def round_file(number: int) -> str:
    """A round's record."""
    return round_folder(number) + "round.json"


def objects(number: int) -> str:
    """The folder of what a round produced, each named by its SHA-256, with its slash."""
    return round_folder(number) + "objects/"


def run(number: int) -> str:
    """What a round leaves only while it is worked on, with its slash."""
    return round_folder(number) + "run/"


def failure(number: int, stage: str, shard: str) -> str:
    """The line with which a stage of a round stopped."""
    return f"{run(number)}failures/{stage}{'-' + shard if shard else ''}.json"


def attempts(number: int) -> str:
    """A mark for each time that a stage of a round was begun, with its slash."""
    return f"{run(number)}attempts/"


def attempt(number: int, stage: str, shard: str, token: str) -> str:
    """One such mark; the token tells it from others."""
    return f"{attempts(number)}{stage}-{shard}/{token}"


def early_failure(run_id: str) -> str:
    """The line with which a run stopped before it had a round."""
    return f"failures/{name(run_id, 'run')}.json"


def earlier(store: Store) -> str:
    """Return a key that only the layout of an earlier version had; empty where there is none."""
    folders = store.folders()
    if "queue" in folders:
        return "queue/"
    if ROUNDS.rstrip("/") not in folders:  # with a round, what an earlier version left is in queue/ too
        for segment in store.folders(LEDGER):
            if store.entry(key := f"{LEDGER}{segment}/segment.json") is not None:
                return key
    return ""
