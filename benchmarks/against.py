"""Time acquisition against an earlier commit, both sides in one process: `python -m benchmarks.against 8dc1519`.

The earlier package is written to a temporary folder under another name, so both are loaded beside each other and share
the threads, the caches and the moment. The sides take turns; each ratio is of the medians, today's over the earlier.
"""

import argparse
import importlib
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
TODAY, EARLIER = "alfamix_core", "alfamix_earlier"
_LABELLED, _CLASSES, _BUDGET = 200, 10, 50


def write_package(commit: str, folder: Path) -> None:
    """Write the acquisition of a commit below a folder as the package ``alfamix_earlier``.

    Args:
        commit: Commit, by any name that git knows.
        folder: Existing folder.
    """
    paths = [f"{TODAY}/{name}" for name in ("__init__.py", "errors.py", "acquisition")]
    packed = subprocess.run(["git", "archive", commit, *paths], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    (folder / TODAY).rename(folder / EARLIER)
    for path in (folder / EARLIER).rglob("*.py"):
        path.write_text(re.sub(rf"\b{TODAY}\b", EARLIER, path.read_text(encoding="utf-8")), encoding="utf-8")


@contextmanager
def earlier(commit: str) -> Iterator[None]:
    """Make the package of a commit importable."""
    with tempfile.TemporaryDirectory() as folder:
        write_package(commit, Path(folder))
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


def _module(package: str, name: str) -> ModuleType:
    return importlib.import_module(f"{package}.acquisition.{name}")


def _problem(package: str, rows: int, size: int) -> tuple[Any, Any, Any]:
    """Return a block, the labelled samples and a head of one package, with the same numbers for each."""
    types, random = _module(package, "types"), torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(_CLASSES, size, generator=random)
    owners = torch.randint(_CLASSES, (rows + _LABELLED,), generator=random)
    embeddings = centres[owners] + torch.randn(len(owners), size, generator=random)
    head = types.LinearHead(centres / size, torch.zeros(_CLASSES))
    known = embeddings[rows:]
    labelled = types.Labelled(known, head(known), owners[rows:])
    pool = embeddings[:rows]
    return types.Features(torch.arange(rows), pool, head(pool)), labelled, head


def _score(package: str, rows: int, size: int) -> Callable[[], object]:
    block, labelled, head = _problem(package, rows, size)
    strategy = _module(package, "strategies").load("alfamix")
    state = strategy.prepare(labelled, head, 0)
    return lambda: strategy.score(block, state).scores_n


def _kmeans(package: str, rows: int, size: int) -> Callable[[], object]:
    block, _, _ = _problem(package, rows, size)
    kmeans = _module(package, "clustering").kmeans
    return lambda: kmeans(block.embeddings_nD, block.positions_n, _BUDGET, 0).owner_n


def _select(name: str) -> Callable[[str, int, int], Callable[[], object]]:
    def build(package: str, rows: int, size: int) -> Callable[[], object]:
        block, labelled, head = _problem(package, rows, size)
        strategy, policy = _module(package, "strategies").load(name), _module(package, "policy")
        state = strategy.prepare(labelled, head, 0)
        scores = strategy.score(block, state)

        def choose() -> list[int]:
            generator = torch.Generator().manual_seed(0)
            choice = policy.choose(strategy, scores, state, _BUDGET, generator)
            return [query.position for query in choice.queries]

        return choose

    return build


PARTS: dict[str, Callable[[str, int, int], Callable[[], object]]] = {
    "scoring (alfamix)": _score,
    "k-means": _kmeans,
    **{name: _select(name) for name in ("coreset", "badge", "typiclust")},
}


def compare(part: str, rows: int, size: int, repeats: int) -> tuple[float, float]:
    """Return the median seconds of the earlier side and of today's, which take turns.

    Args:
        part: Name in ``PARTS``.
        rows: Number of pool samples.
        size: Size of an embedding.
        repeats: Number of runs of each side, after one that does not count.
    """
    sides = [PARTS[part](package, rows, size) for package in (EARLIER, TODAY)]
    seconds: list[list[float]] = [[], []]
    for repeat in range(repeats + 1):
        # the first side alternates, so neither always finds the caches as the other left them
        for side in (0, 1) if repeat % 2 else (1, 0):
            started = time.process_time()
            sides[side]()
            if repeat:
                seconds[side].append(time.process_time() - started)
    before, now = (statistics.median(values) for values in seconds)
    return before, now


def main() -> None:
    """Print the ratios as a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit", help="commit to compare with")
    parser.add_argument("--rows", type=int, default=20_000, help="number of pool samples")
    parser.add_argument("--size", type=int, default=384, help="size of an embedding")
    parser.add_argument("--repeats", type=int, default=9, help="number of runs of each side")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to time")
    options = parser.parse_args()
    with earlier(options.commit):
        print("| part | earlier, CPU s | today, CPU s | ratio |\n|---|---|---|---|", flush=True)
        for part in options.parts:
            before, now = compare(part, options.rows, options.size, options.repeats)
            print(f"| {part} | {before:.3f} | {now:.3f} | {now / before:.2f} |", flush=True)


if __name__ == "__main__":
    main()
