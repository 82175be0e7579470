"""Keys of everything below the project's uri, spelt here alone.

project.json                         drops/<drop>/manifest.jsonl      labels/<batch>.jsonl
champion.json  lock.json             files/<sha256>                   withdrawn/<batch>.jsonl
rounds/<n>/round.json                rounds/<n>/objects/<sha256>      released/<batch>.jsonl
rounds/<n>/run/…                     models/<sha256>/…                ledger/<table>/…
failures/<run id>.json               decisions/<revision>.json        features/<encoder>/…
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
FEATURES = "features/"
FAILURES = "failures/"
MANIFEST_FILE = "manifest.jsonl"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ROUND = re.compile(r"[0-9]{6,}")


def name(text: str, what: str) -> str:
    """Return the text if it can name a drop or a batch.

    Raises:
        InputError: It has other characters than letters, digits, dot, hyphen and underscore.
    """
    if not _NAME.fullmatch(text):
        raise InputError(f'{what} "{text}" must be letters, digits, ".", "-" and "_", beginning with a letter or digit')
    return text


def slug(text: str, otherwise: str) -> str:
    """Return a text as part of a name: at most 60 lower-case letters, digits and hyphens; ``otherwise`` if none is."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:60] or otherwise


def drop(drop_name: str) -> str:
    """Return the folder of a drop, with its slash."""
    return f"{DROPS}{name(drop_name, 'drop')}/"


def manifest(drop_name: str) -> str:
    """Return the manifest of a drop; its presence marks the drop as complete."""
    return drop(drop_name) + MANIFEST_FILE


def labels(batch: str) -> str:
    """Return the key of a batch of label events."""
    return f"{LABELS}{name(batch, 'label batch')}.jsonl"


def withdrawn(batch: str) -> str:
    """Return the key of a list of samples that must not be used any more."""
    return f"{WITHDRAWN}{name(batch, 'batch')}.jsonl"


def released(batch: str) -> str:
    """Return the key of a list of repaired samples."""
    return f"{RELEASED}{name(batch, 'batch')}.jsonl"


def decision(revision: int) -> str:
    """Return the key of a person's choice of the champion with this revision."""
    return f"{DECISIONS}{folder(revision)}.json"


def table(table_name: str) -> str:
    """Return the folder of a table of the ledger."""
    return f"{LEDGER}{table_name}"


def copied(sha256: str) -> str:
    """Return the key of a copied picture, named by its content: one for all drops that deliver it."""
    return f"{FILES}{sha256}"


def model(digest: str) -> str:
    """Return the folder of a model, with its slash."""
    return f"{MODELS}{digest}/"


def features(encoder: str) -> str:
    """Return the folder of an encoder's kept features, with its slash."""
    return f"{FEATURES}{encoder}/"


def round_folder(number: int) -> str:
    """Return the folder of a round, with its slash."""
    return f"{ROUNDS}{folder(number)}/"


def is_round(folder_name: str) -> bool:
    """Tell whether a folder below rounds/ is a round's; a person may have put others there."""
    return _ROUND.fullmatch(folder_name) is not None


def round_file(number: int) -> str:
    """Return the key of a round's record."""
    return round_folder(number) + "round.json"


def objects(number: int) -> str:
    """Return the folder of a round's objects, each named by its SHA-256, with its slash."""
    return round_folder(number) + "objects/"


def run(number: int) -> str:
    """Return the folder of a round's temporary objects, with its slash."""
    return round_folder(number) + "run/"


def failure(number: int, stage: str, shard: str) -> str:
    """Return the key of the line with which a stage of a round stopped."""
    return f"{run(number)}failures/{stage}{'-' + shard if shard else ''}.json"


def attempts(number: int) -> str:
    """Return the folder of the marks of a round's started stages, with its slash."""
    return f"{run(number)}attempts/"


def attempt(number: int, stage: str, shard: str, token: str) -> str:
    """Return the key of one such mark; the token distinguishes it from others."""
    return f"{attempts(number)}{stage}-{shard}/{token}"


def early_failure(run_id: str) -> str:
    """Return the key of the line with which a run stopped before it had a round."""
    return f"failures/{name(run_id, 'run')}.json"


def earlier(store: Store) -> str:
    """Return a key of an earlier version's layout; empty if there is none."""
    folders = store.folders()
    if "queue" in folders:
        return "queue/"
    if ROUNDS.rstrip("/") not in folders:  # with a round, an earlier version has left queue/ too
        for segment in store.folders(LEDGER):
            if store.entry(key := f"{LEDGER}{segment}/segment.json") is not None:
                return key
    return ""
