"""Where local runs keep their outputs, their cache and their logs.

<root>/rounds/000012/outputs, cache    one round's; earlier rounds' are removed when a run of a later round starts
<root>/logs/round-000012-<time>.log    one run's; another run of the same second has -2 after the time
"""

import contextlib
import hashlib
import itertools
import os
import shutil
from datetime import datetime
from pathlib import Path

import platformdirs

from alfamix_core.records.round import folder as round_folder


def default(project_uri: str) -> Path:
    """Return the folder of a project: below $ALFAMIX_WORK, or below the user's cache folder of this system."""
    root = os.environ.get("ALFAMIX_WORK") or platformdirs.user_cache_path("alfamix", appauthor=False)
    name = project_uri.rstrip("/").rsplit("/", 1)[-1]
    return Path(root).resolve() / f"{name}-{hashlib.sha256(project_uri.encode()).hexdigest()[:8]}"


def of_round(root: Path, number: int) -> Path:
    """Return the folder of one round."""
    return root / "rounds" / round_folder(number)


def new_log(root: Path, number: int, now: datetime) -> Path:
    """Return a new, empty log file for a run; no other run has it, however many begin within a second."""
    folder = root / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in itertools.count(1):
        path = folder / f"round-{round_folder(number)}-{now:%Y%m%dT%H%M%S}{f'-{attempt}' if attempt > 1 else ''}.log"
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise AssertionError("the count has no end")


def forget_before(root: Path, number: int) -> None:
    """Remove the folders of earlier rounds, which no later round can use."""
    for folder in (root / "rounds").glob("[0-9]*"):
        if folder.name < round_folder(number):
            shutil.rmtree(folder, ignore_errors=True)
