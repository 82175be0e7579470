"""The parts of the measurement; each runs in a process of its own and prints its lines as JSON.

python -m benchmarks.gpu.parts scoring --device cuda
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alfamix_core.acquisition import blocks, strategies
from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.flips import critical_caps, linear_flips
from alfamix_core.acquisition.probabilities import log_probabilities
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.strategies.entropy import entropies
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from benchmarks.gpu.work import Rates, counted, measure, timed

_GIB = 2**30
_STREAM_ROWS = 64 * blocks.BLOCK_ROWS
"""Rows of a block on a GPU: as many as a stage would read at a time."""


@dataclass(frozen=True)
class Line:
    """One measurement.

    Attributes:
        what: Name of the measured call.
        size: Size of the input.
        seconds: Median time.
        products: Share of the seconds that its matrix products take at the device's measured rate.
        moves: Share of the seconds that its bytes take at the measured bandwidth; above 1 where caches serve them.
        peak_gib: Peak device memory of all tensors, earlier ones included; 0 on the CPU.
        note: Number of kernels, and anything else worth knowing.
    """

    what: str
    size: str
    seconds: float
    products: float
    moves: float
    peak_gib: float
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """The device, its rates and the sizes.

    Attributes:
        device: Device of all tensors.
        small: Whether sizes are those of a test.
        rates: Best rates of the device.
    """

    device: torch.device
    small: bool
    rates: Rates

    def line(self, what: str, size: str, call: Callable[[], object], note: str = "", repeats: int = 5) -> Line:
        """Measure one call."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        _, seconds = timed(call, self.device, repeats)
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        work = counted(call)
        shares = self.rates.of_products(work) / seconds, self.rates.of_moves(work) / seconds
        words = f"{work.calls:,} kernels" + (f"; {note}" if note else "")
        return Line(what, size, seconds, *shares, peak / _GIB, words)


@dataclass(frozen=True)
class Task:
    """A pool of Gaussian classes with its labelled samples and a head, on the device."""

    pool: Features
    labelled: Labelled
    head: LinearHead

    @property
    def rows(self) -> Tensor:
        """The pool's embeddings."""
        assert self.pool.embeddings_nD is not None
        return self.pool.embeddings_nD


def _task(device: torch.device, N: int, D: int, K: int, L: int, *, logits: bool = True) -> Task:
    random = torch.Generator(device).manual_seed(0)
    centres_KD = 4 * torch.randn(K, D, generator=random, device=device) / D**0.5
    head = LinearHead(centres_KD, -0.5 * centres_KD.square().sum(dim=1))

    def rows(n: int) -> tuple[Tensor, Tensor]:
        owner_n = torch.randint(K, (n,), generator=random, device=device)
        rows_nD = torch.randn(n, D, generator=random, device=device)
        for start in range(0, n, _STREAM_ROWS):
            rows_nD[start : start + _STREAM_ROWS] += centres_KD[owner_n[start : start + _STREAM_ROWS]]
        return rows_nD, owner_n

    embeddings_nD, _ = rows(N)
    labelled_LD, labels_L = rows(L)
    labels_L[:K] = torch.arange(K, device=device)[:L]
    positions_n = torch.arange(N, device=device)
    pool = Features(positions_n, embeddings_nD, head(embeddings_nD) if logits else None)
    return Task(pool, Labelled(labelled_LD, head(labelled_LD), labels_L), head)


def _shape(N: int, D: int, **others: int) -> str:
    return " ".join([f"{N:,} x {D}", *(f"{name}={value:,}" for name, value in others.items())])


def scoring(setting: Setting) -> Iterator[Line]:
    """ALFA-Mix's scores, the whole schedule of caps, beside entropy with the head's product."""
    N, D, K = (3_000, 32, 10) if setting.small else (1_000_000, 768, 1_000)
    task, size = _task(setting.device, N, D, K, L=5 * K, logits=False), _shape(N, D, K=K)
    flips = linear_flips(task.labelled, task.head)

    def scores() -> Tensor:
        return torch.cat([critical_caps(block, flips) for block in torch.split(task.rows, _STREAM_ROWS)])

    yield setting.line("ALFA-Mix, scores", size, scores)

    def entropy() -> Tensor:
        parts = torch.split(task.rows, _STREAM_ROWS)
        return torch.cat([entropies(log_probabilities(task.head(block))) for block in parts])

    yield setting.line("entropy, with the head's product", size, entropy)
    strategy = strategies.load("alfamix")
    state = strategy.prepare(task.labelled, task.head, 0)
    pool = [
        Features(*pair)
        for pair in zip(*(torch.split(x, _STREAM_ROWS) for x in (task.pool.positions_n, task.rows)), strict=True)
    ]
    yield setting.line("ALFA-Mix, a shard", size, lambda: score_shard(strategy, pool, state, 200), repeats=3)
    rows, usual = task.rows[: N // 4], (blocks.BLOCK_ROWS, blocks.CUDA_BLOCK_ROWS)
    for factor in (1, 2, 4, 8, 16, 32):
        blocks.BLOCK_ROWS = blocks.CUDA_BLOCK_ROWS = factor * usual[0]
        words = f"blocks of {blocks.BLOCK_ROWS:,} rows"
        call = lambda: critical_caps(rows, flips)  # noqa: E731
        yield setting.line("ALFA-Mix, scores, " + words, _shape(len(rows), D, K=K), call, repeats=3)
    blocks.BLOCK_ROWS, blocks.CUDA_BLOCK_ROWS = usual


def clusters(setting: Setting) -> Iterator[Line]:
    """k-means of unit vectors."""
    for N, D, B in [(2_000, 64, 20)] if setting.small else [(20_000, 512, 500), (200_000, 768, 1_000)]:
        rows_nD = torch.nn.functional.normalize(_task(setting.device, N, D, 100, 100, logits=False).rows, dim=1)
        positions_n = torch.arange(N, device=setting.device)
        inertias = [kmeans(rows_nD, positions_n, B, 0).inertia]
        call = lambda rows_nD=rows_nD, positions_n=positions_n, B=B: kmeans(rows_nD, positions_n, B, 0)  # noqa: E731
        yield setting.line("k-means", _shape(N, D, B=B), call, f"inertia {inertias[0]:.1f}", repeats=3)


def _choice(setting: Setting, name: str, sizes: list[tuple[int, int, int, int]]) -> Iterator[Line]:
    """One strategy from features to queries."""
    for N, D, K, B in sizes:
        task = _task(setting.device, N, D, K, L=max(K, 1_000 if N > 10_000 else 0), logits=name != "coreset")
        strategy = strategies.load(name)

        def choose(strategy: Any = strategy, task: Task = task, B: int = B) -> Tensor:
            state = strategy.prepare(task.labelled, task.head, 0)
            scores = score_shard(strategy, [task.pool], state, B)
            return strategy.select(scores, state, B, torch.Generator().manual_seed(0))

        yield setting.line(name, _shape(N, D, K=K, B=B), choose, repeats=3)


def coreset(setting: Setting) -> Iterator[Line]:
    """Core-set from features to queries."""
    small, large = [(2_000, 32, 10, 20)], [(100_000, 512, 100, 1_000), (1_000_000, 768, 100, 1_000)]
    return _choice(setting, "coreset", small if setting.small else large)


def badge(setting: Setting) -> Iterator[Line]:
    """Badge from features to queries."""
    small, large = [(2_000, 32, 10, 20)], [(20_000, 768, 100, 200), (1_000_000, 768, 100, 200)]
    return _choice(setting, "badge", small if setting.small else large)


def bait(setting: Setting) -> Iterator[Line]:
    """Bait from features to queries."""
    small, large = [(2_000, 32, 10, 20)], [(20_000, 384, 100, 200), (100_000, 768, 100, 200)]
    if "bait" in strategies.names():
        yield from _choice(setting, "bait", small if setting.small else large)


def uherding(setting: Setting) -> Iterator[Line]:
    """Uncertainty herding from features to queries."""
    small, large = [(2_000, 32, 10, 20)], [(20_000, 512, 100, 200)]
    return _choice(setting, "uherding", small if setting.small else large)


PARTS: dict[str, Callable[[Setting], Iterator[Line]]] = {
    "scoring": scoring,
    "k-means": clusters,
    "coreset": coreset,
    "badge": badge,
    "bait": bait,
    "uherding": uherding,
}


def rates(device: torch.device, small: bool) -> Rates:
    """Measure the device's products and copies."""
    return measure(device, 384, 2**24) if small else measure(device, 8_192, 2**31)


def main() -> int:
    """Run one part, print one JSON object per line; return 0."""
    parser = argparse.ArgumentParser(description="One part of the measurement on a device.")
    parser.add_argument("part", choices=["rates", *PARTS])
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default cuda)")
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    parser.add_argument("--rates", type=Path, help="file with what the part `rates` printed")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.part == "rates":
        print(json.dumps(asdict(rates(device, options.small))), flush=True)
        return 0
    setting = Setting(device, options.small, Rates(**json.loads(options.rates.read_text())))
    for line in PARTS[options.part](setting):
        print(json.dumps(asdict(line)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
