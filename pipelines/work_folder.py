"""Where local runs keep their outputs, their cache and their logs.

<root>/rounds/000012/outputs, cache    of one round; those of earlier rounds are removed when a round is exported
<root>/logs/round-000012-<time>.log
"""

import hashlib
import os
import shutil
from pathlib import Path


def default(project_uri: str) -> Path:
    """Return the folder for a project: below $ALFAMIX_WORK, or $XDG_CACHE_HOME/alfamix, or ~/.cache/alfamix."""
    root = os.environ.get("ALFAMIX_WORK")
    if not root:
        root = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")) + "/alfamix"
    name = project_uri.rstrip("/").rsplit("/", 1)[-1]
    return Path(root).resolve() / f"{name}-{hashlib.sha256(project_uri.encode()).hexdigest()[:8]}"


def of_round(root: Path, number: int) -> Path:
    """Return the folder of one round."""
    return root / "rounds" / f"{number:06d}"


def forget_before(root: Path, number: int) -> None:
    """Remove what earlier rounds left; nothing of it can be used again."""
    for folder in (root / "rounds").glob("[0-9]*"):
        if folder.name < f"{number:06d}":
            shutil.rmtree(folder, ignore_errors=True)
