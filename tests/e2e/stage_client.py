"""The other end of ``stage_server``: start a run, and read what became of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from alfamix_core.storage import Store
from tests.servers.stages import Account, Request

ROOT = Path(__file__).parents[2]


class StageServer:
    """The process that does runs and commands, see ``stage_server``."""

    def __init__(self, process: subprocess.Popen[str], name: str):
        self._process, self._name = process, name
        self._runs = 0

    def run(self, store: Store, work: Path, answers: Path, **fields: object) -> Account:
        """Run once under a name of its own; return the outcome, or that a stage stopped."""
        self._runs += 1
        request = Request(store.uri, str(work), f"{self._name}-{self._runs}", str(answers), **fields)
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return self.rest()

    def rest(self) -> Account:
        """Wait for the end of a run that stopped on its way."""
        return Account(**json.loads(self._process.stdout.readline()))


@contextmanager
def stage_server(environment: dict[str, str], name: str = "run") -> Iterator[StageServer]:
    """Start a server, whose stages see this environment and whose runs have this name."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.stages"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield StageServer(process, name)
        process.stdin.close()
