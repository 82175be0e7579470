"""A real Prometheus and a real Pushgateway on free ports, their data in a folder of the test."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from tests.conftest import _DIES_WITH_US, _free_ports

_START_SECONDS = 30.0
Labels = frozenset[tuple[str, str]]


def program(name: str) -> str:
    """Return the path of promtool, prometheus or prometheus-pushgateway."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"the program {name} is missing: run `make prometheus`, or install Debian's package of that name")
    return found


def promtool(*arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool; the caller looks at the status."""
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


def lint(exposition: str) -> str:
    """Return what `promtool check metrics` finds in an exposition; empty when it is clean."""
    done = promtool("check", "metrics", text=exposition)
    return done.stdout + done.stderr if done.returncode or done.stderr.strip() or done.stdout.strip() else ""


def fetch(url: str) -> str:
    """Return a page's body."""
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def until(what: Callable[[], Any], meaning: str, seconds: float = 60.0) -> Any:
    """Wait for something true, and return it.

    Args:
        what: asked again and again.
        meaning: what is waited for, in words.
        seconds: after which the test fails.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {meaning}"
        time.sleep(0.1)


@contextmanager
def started(*command: str | Path, url: str, log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """Run a server while the block lasts; the block begins when its address answers."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*_DIES_WITH_US, *map(str, command)], stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, env=env
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except (URLError, OSError):
        return False
    return True


@contextmanager
def pushgateway(folder: Path) -> Iterator[str]:
    """Run a Pushgateway; yield its address, such as http://127.0.0.1:40001."""
    (port,) = _free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = (program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}")
    with started(*command, url=f"{address}/-/ready", log=folder / "pushgateway.log"):
        yield address


@contextmanager
def prometheus(folder: Path, configuration: Path) -> Iterator["Prometheus"]:
    """Run a Prometheus with a configuration; its series are stored in the folder."""
    (port,) = _free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = (
        *(program("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'series'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    )
    with started(*command, url=f"{address}/-/ready", log=folder / "prometheus.log"):
        yield Prometheus(address)


@dataclass(frozen=True)
class Prometheus:
    """Prometheus' HTTP API."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; an error of Prometheus' fails the test."""
        body = urlencode(parameters).encode() if parameters else None
        with urlopen(Request(f"{self.address}/api/v1/{path}", data=body), timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> dict[Labels, float]:
        """Return an instant vector as values by labels, of which the metric's name is one, ``__name__``."""
        data = self.ask("query", query=expression)
        assert data["resultType"] == "vector", expression
        return {frozenset(each["metric"].items()): float(each["value"][1]) for each in data["result"]}

    def value(self, expression: str) -> float:
        """Return the only value of an instant vector."""
        found = self.values(expression)
        assert len(found) == 1, f"{expression}: {found}"
        return next(iter(found.values()))

    def alerts(self, state: str = "firing") -> set[str]:
        """Return the names of the alerts in a state."""
        with urlopen(f"{self.address}/api/v1/alerts", timeout=10) as answer:
            found = json.load(answer)["data"]["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == state}

    def targets(self) -> dict[str, str]:
        """Return the health of each scraped job: up, down or unknown."""
        with urlopen(f"{self.address}/api/v1/targets", timeout=10) as answer:
            found = json.load(answer)["data"]["activeTargets"]
        return {each["labels"]["job"]: each["health"] for each in found}
