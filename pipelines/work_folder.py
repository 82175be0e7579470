"""Where local runs keep their outputs, their cache and their logs."""

import hashlib
import os
from pathlib import Path


def default(project_uri: str) -> Path:
    """Return the folder for a project: below $ALFAMIX_WORK, or $XDG_CACHE_HOME/alfamix, or ~/.cache/alfamix."""
    root = os.environ.get("ALFAMIX_WORK")
    if not root:
        root = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")) + "/alfamix"
    name = project_uri.rstrip("/").rsplit("/", 1)[-1]
    return Path(root).resolve() / f"{name}-{hashlib.sha256(project_uri.encode()).hexdigest()[:8]}"
