"""The tests of acquisition on one device, in a process that stops when its time is over.

python -m benchmarks.gpu.checks --device cuda --seconds 150 --to outcomes.jsonl
"""

import argparse
import json
import os
import sys
import time
import zlib
from pathlib import Path
from types import ModuleType

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # sums are only repeatable with it, and CUDA reads it once

import pytest

ROOT = Path(__file__).parents[2]
TESTS = "tests/alfamix_core/acquisition"
FIRST = ("test_devices", "test_blocks", "test_contract")
"""Files whose tests come first: exactness against the CPU, bits of blocks, and what each strategy promises."""


class Outcomes:
    """A pytest plugin that runs a share of one device's tests, and writes each outcome immediately.

    Attributes:
        device: Device of the tests to run, "cuda" or "cpu".
        share: Share (i, of): every of-th test by name, from the i-th on.
        deadline: Time of ``time.monotonic`` after which no test begins.
        out: File that receives one JSON object per line.
    """

    def __init__(self, device: str, share: tuple[int, int], deadline: float, out: Path) -> None:
        self.device, self.share, self.deadline, self.out = device, share, deadline, out

    def write(self, **values: object) -> None:
        """Write one line."""
        with self.out.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep only the tests of this device and share, the most important first."""
        number, of = self.share
        mine = [
            item
            for item in items
            if getattr(item, "callspec", None) is not None
            and item.callspec.params.get("device") == self.device  # type: ignore[attr-defined]
            and zlib.crc32(item.nodeid.encode()) % of == number
        ]
        items[:] = sorted(mine, key=lambda item: not item.path.stem.startswith(FIRST))
        self.write(collected=len(items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Stop when the time is over, before this test."""
        if time.monotonic() <= self.deadline:
            return None
        item.session.shouldstop = "the time is over"  # type: ignore[assignment]
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the outcome of a test, not that of each of its phases."""
        if report.when == "call" or report.outcome != "passed":
            words = ""
            if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
                words = report.longrepr[2].removeprefix("Skipped: ")
            elif report.outcome == "failed":
                words = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))[:400]
            self.write(test=report.nodeid.removeprefix(TESTS + "/"), outcome=report.outcome, words=words)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write a failed collection."""
        if report.outcome != "passed":
            words = str(report.longrepr)[-400:]
            self.write(test=report.nodeid.removeprefix(TESTS + "/"), outcome=report.outcome, words=words)


def _make_ours_importable() -> None:
    """Make ``tests`` our folder even if an installed package put one of that name on the path."""
    for folder in ("tests", "tests/alfamix_core", TESTS):
        module = ModuleType(folder.replace("/", "."))
        module.__path__ = [str(ROOT / folder)]
        sys.modules[module.__name__] = module


def main() -> int:
    """Run the tests; return pytest's exit status."""
    parser = argparse.ArgumentParser(description="The tests of acquisition on one device.")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default cuda)")
    parser.add_argument("--share", default="0/1", help="I/N: every N-th test, from the I-th")
    parser.add_argument("--seconds", type=float, default=150, help="time after which no test begins (default 150)")
    parser.add_argument("--to", type=Path, required=True, help="where outcomes are written")
    parser.add_argument("paths", nargs="*", default=[TESTS], help="what is tested (default: all of acquisition)")
    options = parser.parse_args()
    number, of = map(int, options.share.split("/"))
    os.chdir(ROOT)
    _make_ours_importable()
    plugin = Outcomes(options.device, (number, of), time.monotonic() + options.seconds, options.to)
    arguments = ["--confcutdir", TESTS, "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    return int(pytest.main([*arguments, *options.paths], plugins=[plugin]))


if __name__ == "__main__":
    sys.exit(main())
