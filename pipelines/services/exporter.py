"""`alfamix exporter`: the state of projects for Prometheus to scrape, read from storage at regular intervals.

Each reading is a process of its own that ends: so the memory of the exporter does not grow with the projects, a reading
that hangs or dies takes nothing with it, and a scrape is answered immediately with what was read last.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from prometheus_client import generate_latest

from alfamix_core.telemetry import metrics as m
from alfamix_core.telemetry.events import emit
from alfamix_core.telemetry.exposition import Board, registry

_TIMEOUT = 600.0  # seconds that one reading may take


class Exporter:
    """The metrics of projects, as they were read last."""

    def __init__(self, uris: Sequence[str], refresh: float) -> None:
        """Take the projects.

        Args:
            uris: URIs of the projects.
            refresh: Time between the beginnings of two readings, in seconds.
        """
        self._uris = tuple(uris)
        self._refresh = refresh
        self._boards: dict[str, Board] = {}
        self._own = Board("")
        self._stopped = threading.Event()
        self.turned = time.monotonic()
        self.warnings: dict[str, str] = {}

    def read_all(self) -> None:
        """Read every project once; one that cannot be read keeps its last values and is reported as down."""
        for uri in self._uris:
            self._read(uri)
            self.turned = time.monotonic()

    def run(self) -> None:
        """Read the projects at regular intervals until ``stop``."""
        while not self._stopped.is_set():
            begun = time.monotonic()
            self.read_all()
            self._stopped.wait(max(0.0, self._refresh - (time.monotonic() - begun)))

    def stop(self) -> None:
        """End ``run`` soon."""
        self._stopped.set()

    def exposition(self) -> bytes:
        """Return what a scrape sees, in the text format."""
        return generate_latest(registry([*list(self._boards.values()), self._own]))

    def _read(self, uri: str) -> None:
        begun = time.monotonic()
        command = [sys.executable, "-m", "alfamix_core.project.state", uri]
        try:
            reading = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
            problem = reading.stderr.strip().rpartition("\n")[2] if reading.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"the project was not read within {_TIMEOUT:g} s"
        if not problem:
            self._boards[uri] = Board.from_json(reading.stdout)
            self._own.set(m.EXPORTER_READ, time.time(), project_uri=uri)
        self._own.set(m.EXPORTER_SECONDS, time.monotonic() - begun, project_uri=uri)
        self._own.set(m.EXPORTER_UP, float(not problem), project_uri=uri)
        if problem and self.warnings.get(uri) != problem:
            emit("warning", project=uri, text=problem)
        self.warnings[uri] = problem
