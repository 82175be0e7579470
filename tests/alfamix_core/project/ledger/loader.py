"""Load a project's inbox in a process of its own, once for each moment that comes in as a line."""

import sys
from datetime import datetime

from alfamix_core.errors import ObjectChangedError
from alfamix_core.project import planning, rounds
from alfamix_core.storage import open_store

RUN = "run"
"""What every loader calls itself: each believes that it holds the lock."""


def main() -> None:
    """Say ``ready``, and ``loaded`` after each load."""
    store = open_store(sys.argv[1])
    settings = rounds.read_settings(store)
    print("ready", flush=True)
    for line in sys.stdin:
        while True:
            try:
                with planning.loading(store, settings, RUN, datetime.fromisoformat(line.strip())):
                    break
            except ObjectChangedError:
                continue  # the others were quicker more than once
        print("loaded", flush=True)


if __name__ == "__main__":
    main()
