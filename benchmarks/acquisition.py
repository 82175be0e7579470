"""Time and memory of acquisition beside others' code, both sides in one process.

    python benchmarks/acquisition.py --quick              every row, small, under two minutes on two cores
    python benchmarks/acquisition.py alfamix kmeans       two rows at the sizes of the docs
    python benchmarks/acquisition.py --json table.json    every row, and the table as JSON

Peak memory is the growth of RssAnon, the process's own pages without files that are mapped, from just before a first
call to its highest value within it, read by a thread every few milliseconds. tracemalloc knows nothing of torch's
memory, and the kernel's high-water mark counts pages of mapped files. What a call needs for less than a few
milliseconds can be missed. To see all of a call's growth, freed memory is handed back to the system before it, and the
call pays for every page again; so calls of less than a second are timed apart from it, without the thread.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args

from alfamix_core.learning.threads import WAITING

os.environ.update(WAITING | os.environ)  # before torch: both sides' threads wait as ours do in production

import torch
from torch import Tensor

from alfamix_core.acquisition import agglomerative, strategies
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.blocks import CUDA_BLOCK_ROWS
from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.constraints import Apart
from alfamix_core.acquisition.flips import critical_caps, linear_flips
from alfamix_core.acquisition.probabilities import log_probabilities
from alfamix_core.acquisition.rows import Rows
from alfamix_core.acquisition.schedule import CAPS
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.strategies.entropy import entropies
from alfamix_core.acquisition.strategies.uherding import herd
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.tunable_types import Effort
from alfamix_core.acquisition.types import Features, Labelled, LinearHead, Scores
from alfamix_core.records.features import FeatureWriter, read_blocks
from alfamix_core.records.scores import read_scores, write_scores
from tests.alfamix_core.acquisition.paper_loop import first_caps_by_loop

T = TypeVar("T")

_SAMPLE_SECONDS = 0.002
_STREAM_BLOCK = CUDA_BLOCK_ROWS  # as the stage reads them
_MB = 2**20
_OURS = "ours"


@dataclass(frozen=True)
class Line:
    """One side of a comparison.

    Attributes:
        row: Name of the comparison.
        size: Size of the input.
        side: Code that was measured.
        seconds: Median over the repeats; a first call of less than a second does not count.
        cpu_seconds: Median of the processor's time, all threads together, which is steadier on a busy machine.
        peak_mb: Growth of RssAnon during the first call, in MiB.
        ratio: Seconds divided by those of the first line of the same row and size, which is ours.
        note: Other measurements, and the limits of the comparison.
    """

    row: str
    size: str
    side: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    ratio: float
    note: str = ""


@dataclass
class Bench:
    """The measurements of a run.

    Attributes:
        quick: Whether sizes are small.
        repeats: Number of calls of which the median counts; long calls are not repeated.
        lines: Lines measured so far.
    """

    quick: bool
    repeats: int
    lines: list[Line] = field(default_factory=list)

    def measure(self, row: str, size: str, side: str, call: Callable[[], T], note: Callable[[T], str] | str = "") -> T:
        """Run one side, print its line, and return what the first call returned."""
        result, times, peak = _watched(call)
        # a short first call also pays for threads, plans and pages that later ones find ready
        runs = [times] if times[0] > 1 else []
        while not runs or (len(runs) < self.repeats and sum(seconds for seconds, _ in runs) < 10):
            runs.append(_timed(call)[1])
        seconds, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        first = next((line.seconds for line in self.lines if (line.row, line.size) == (row, size)), None)
        ratio = 1.0 if first is None else seconds / first
        words = note if isinstance(note, str) else note(result)
        self.add(Line(row, size, side, seconds, cpu, peak / _MB, ratio, words))
        return result

    def add(self, line: Line) -> None:
        """Print a line and keep it."""
        if not self.lines:
            print(_text("row", "size", "side", "seconds", "cpu s", "peak MiB", "ratio", "note"))
        self.lines.append(line)
        numbers = f"{line.seconds:.4f}", f"{line.cpu_seconds:.2f}", f"{line.peak_mb:.0f}", f"{line.ratio:.2f}"
        print(_text(line.row, line.size, line.side, *numbers, line.note), flush=True)

    def skip(self, row: str, reason: str) -> None:
        """Report that a row, or a side of it, is left out."""
        print(_text(row, "", "skipped", "", "", "", "", reason), flush=True)


def _text(row: str, size: str, side: str, seconds: str, cpu: str, peak: str, ratio: str, note: str) -> str:
    return f"{row:<14} {size:<27} {side:<24} {seconds:>10} {cpu:>8} {peak:>9} {ratio:>9}  {note}".rstrip()


def _anonymous() -> int:
    """Return RssAnon of this process in bytes."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


def _available() -> int:
    """Return the memory that the machine can still give, in bytes."""
    with Path("/proc/meminfo").open() as info:
        return next(int(line.split()[1]) for line in info if line.startswith("MemAvailable")) * 1024


def _timed(call: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """Return a call's result, and its seconds and its processor seconds."""
    before, worked = time.perf_counter(), time.process_time()
    result = call()
    return result, (time.perf_counter() - before, time.process_time() - worked)


def _watched(call: Callable[[], T]) -> tuple[T, tuple[float, float], int]:
    """Return the results of ``_timed``, and the call's peak of RssAnon above the start."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    start = highest = _anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(_SAMPLE_SECONDS):
            highest = max(highest, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result, times = _timed(call)
    highest = max(highest, _anonymous())
    done.set()
    watcher.join()
    return result, times, highest - start


def _module(bench: Bench, row: str, name: str) -> ModuleType | None:
    """Return a module of another package; report it and return None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        bench.skip(row, f"{name} is not installed")
        return None


@dataclass(frozen=True)
class Task:
    """A pool of Gaussian classes with its labelled samples and a head."""

    pool: Features
    labelled: Labelled
    head: LinearHead

    @property
    def rows(self) -> Tensor:
        """The pool's embeddings."""
        assert self.pool.embeddings_nD is not None
        return self.pool.embeddings_nD


@dataclass(frozen=True)
class Mixture:
    """The centres of K Gaussian classes, and the head that tells them apart."""

    centres_KD: Tensor
    head: LinearHead

    @staticmethod
    def of(D: int, K: int) -> "Mixture":
        """Return classes that overlap, so that some predictions are easy to change and most are not."""
        centres_KD = 4 * torch.randn(K, D, generator=torch.Generator().manual_seed(K)) / D**0.5
        return Mixture(centres_KD, LinearHead(centres_KD, -0.5 * centres_KD.square().sum(dim=1)))

    def rows(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return n embeddings and their classes."""
        random = torch.Generator().manual_seed(seed)
        owner_n = torch.randint(len(self.centres_KD), (n,), generator=random)
        return self.centres_KD[owner_n] + torch.randn(n, self.centres_KD.shape[1], generator=random), owner_n

    def labelled(self, L: int) -> Labelled:
        """Return L labelled samples."""
        embeddings_LD, labels_L = self.rows(L, seed=1)
        return Labelled(embeddings_LD, self.head(embeddings_LD), labels_L)

    def task(self, N: int, L: int, passes: int = 0) -> Task:
        """Return a pool of N with L labelled samples, and logits of T passes with dropout on the features."""
        embeddings_nD, _ = self.rows(N, seed=0)
        mc_logits_nTK = None
        if passes:
            kept_TD = torch.rand(passes, embeddings_nD.shape[1], generator=torch.Generator().manual_seed(2)) > 0.5
            mc_logits_nTK = torch.stack([self.head(2 * embeddings_nD * kept_D) for kept_D in kept_TD], dim=1)
        pool = Features(torch.arange(N), embeddings_nD, self.head(embeddings_nD), mc_logits_nTK)
        return Task(pool, self.labelled(L), self.head)


def _choose(name: str, task: Task, budget: int, parameters: dict[str, object] | None = None) -> Tensor:
    """Run one strategy of ours from features to queries."""
    strategy = strategies.load(name, parameters)
    state = strategy.prepare(task.labelled, task.head, 0)
    scores = score_shard(strategy, [task.pool], state, budget)
    return strategy.select(scores, state, budget, torch.Generator().manual_seed(0))


def alfamix(bench: Bench) -> None:
    """The loop over classes and caps beside the closed form, and entropy as the floor of any scoring."""
    N, D, K = (2_000, 128, 20) if bench.quick else (20_000, 512, 100)
    size = f"N={N} D={D} K={K}"
    task = Mixture.of(D, K).task(N, L=10 * K)
    anchors_CD = class_means(task.labelled).means_CD

    def closed_form(embeddings_nD: Tensor) -> Tensor:
        return critical_caps(embeddings_nD, linear_flips(task.labelled, task.head))

    def loop(embeddings_nD: Tensor) -> Tensor:
        return first_caps_by_loop(embeddings_nD, anchors_CD, task.head)

    def candidates(firsts_n: Tensor, *, of_loop: bool) -> list[Tensor]:
        return [firsts_n <= cap if of_loop else firsts_n < cap for cap in CAPS]

    def shares(firsts_n: Tensor) -> str:
        found = [f"{float((firsts_n < cap).double().mean()):.0%}" for cap in CAPS]
        return f"candidates at caps .2 … 1: {' '.join(found)}"

    rows_nD, exact_nD = task.rows, task.rows.double()
    single = bench.measure("alfamix", size, "closed form", lambda: closed_form(rows_nD), shares)
    looped = bench.measure("alfamix", size, "loop", lambda: loop(rows_nD))
    fast, slow = candidates(single, of_loop=False), candidates(looped, of_loop=True)
    differ = sum(int((one != other).sum()) for one, other in zip(fast, slow, strict=True))
    double = bench.measure("alfamix", size + " f64", "closed form", lambda: closed_form(exact_nD))
    looped = bench.measure("alfamix", size + " f64", "loop", lambda: loop(exact_nD), "identical candidates")
    fast, slow = candidates(double, of_loop=False), candidates(looped, of_loop=True)
    assert all(torch.equal(one, other) for one, other in zip(fast, slow, strict=True)), "candidates differ"
    print(f"  float32 beside float32 loop: {differ} of {5 * N} memberships differ by rounding")


def floor(bench: Bench) -> None:
    """Scoring by entropy with the head's product: no strategy can do with less. Ratio: beside that floor."""
    sizes = [(4_000, 128, 20)] if bench.quick else [(20_000, 512, 100), (20_000, 768, 1_000), (20_000, 2_048, 100)]
    for N, D, K in sizes:
        task = Mixture.of(D, K).task(N, L=5 * K)
        size = f"N={N} D={D} K={K}"

        def entropy(task: Task = task) -> Tensor:
            blocks = torch.split(task.rows, _STREAM_BLOCK)
            return torch.cat([entropies(log_probabilities(task.head(block))) for block in blocks])

        bench.measure("floor", size, "entropy, head included", entropy)
        flips = linear_flips(task.labelled, task.head)
        embeddings_nD = task.rows

        def caps(embeddings_nD: Tensor = embeddings_nD, flips: Any = flips) -> Tensor:
            return torch.cat([critical_caps(block, flips) for block in torch.split(embeddings_nD, _STREAM_BLOCK)])

        bench.measure("floor", size, "alfamix scores", caps)


def _inertia(rows_nD: Tensor, centres_BD: Tensor) -> float:
    """Return the sum of squared distances to the nearest centre, in float64."""
    centres_BD = centres_BD.double()
    blocks = (block.double() for block in torch.split(rows_nD, _STREAM_BLOCK))
    return sum(float(torch.cdist(block, centres_BD).amin(dim=1).square().sum()) for block in blocks)


def clustering(bench: Bench) -> None:
    """k-means of unit vectors beside scikit-learn's and faiss's; the notes hold the inertia.

    Two kinds of data: classes that vary in few directions, as embeddings do, and as many round groups far apart as
    there are clusters, where Lloyd alone is at its worst.
    """
    N, D, B = (4_000, 128, 100) if bench.quick else (20_000, 512, 500)
    random = torch.Generator().manual_seed(0)
    spread_nr, axes_rD = torch.randn(N, 32, generator=random), torch.randn(32, D, generator=random)
    classes_nD = 4 * torch.randn(100, D, generator=random)[torch.randint(100, (N,), generator=random)]
    alike_nD = classes_nD + 2 * spread_nr @ axes_rD / 32**0.5 + torch.randn(N, D, generator=random)
    apart_nD = 3 * torch.randn(B, D, generator=random)[torch.randint(B, (N,), generator=random)]
    apart_nD = apart_nD + torch.randn(N, D, generator=random)
    for kind, raw_nD in (("classes", alike_nD), ("clusters", apart_nD)):
        _cluster(bench, f"N={N} D={D} B={B} {kind}", torch.nn.functional.normalize(raw_nD, dim=1), B)


def _cluster(bench: Bench, size: str, rows_nD: Tensor, count: int) -> None:
    D = rows_nD.shape[1]
    positions_n = torch.arange(len(rows_nD))
    inertias: list[float] = []

    def note(centres_BD: Tensor) -> str:
        inertias.append(_inertia(rows_nD, centres_BD))
        return f"inertia {inertias[-1]:.1f}"

    for effort in get_args(Effort):

        def ours(effort: Effort = effort) -> Tensor:
            return kmeans(rows_nD, positions_n, count, 0, effort).centres_BD

        bench.measure("kmeans", size, f"ours, {effort}", ours, note)
    cluster = _module(bench, "kmeans", "sklearn.cluster")
    if cluster is not None:

        def fit() -> Tensor:
            found = cluster.KMeans(count, n_init=1, random_state=0).fit(rows_nD.numpy())
            return torch.from_numpy(found.cluster_centers_)

        bench.measure("kmeans", size, "scikit-learn, n_init=1", fit, note)
    faiss = _module(bench, "kmeans", "faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(torch.get_num_threads())

        def train() -> Tensor:
            model = faiss.Kmeans(D, count, seed=0)
            model.train(rows_nD.numpy())
            return torch.from_numpy(model.centroids)

        bench.measure("kmeans", size, "faiss, 25 rounds", train, note)
    excess = [f"{100 * (inertia / min(inertias) - 1):.2f} %" for inertia in inertias]
    print(f"  inertia above the best of these, in order: {', '.join(excess)}")


def _others(task: Task, base: Any) -> tuple[Any, Any, Any]:
    """Return X, y and a fitted classifier as scikit-activeml expects them: the pool first, then the labelled rows."""
    import numpy as np

    X = torch.cat([task.rows, task.labelled.embeddings_LD]).numpy()
    y = np.full(len(X), np.nan)
    y[len(task.pool) :] = task.labelled.labels_L.numpy()
    return X, y, _classifier(base, task.head)


def _classifier(base: Any, head: LinearHead) -> Any:
    """Return a scikit-activeml classifier that is a linear head."""

    class HeadClassifier(base):  # type: ignore[misc]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            return self

        def predict_proba(self, X: Any) -> Any:
            return head(torch.from_numpy(X).float()).softmax(dim=1).double().numpy()

        def predict(self, X: Any) -> Any:
            return head(torch.from_numpy(X).float()).argmax(dim=1).numpy()

    return HeadClassifier(classes=list(range(len(head.bias_K))))


def _beside_activeml(
    bench: Bench, name: str, size: str, task: Task, budget: int, query: Callable[[Any], Any], needs: int, note: str
) -> None:
    """Measure a strategy of ours and the same of scikit-activeml, if both exist and its memory suffices."""
    if name not in strategies.names():
        bench.skip(name, "our strategy does not exist yet")
        return
    bench.measure(name, size, _OURS, lambda: _choose(name, task, budget))
    module = _module(bench, name, "skactiveml.pool")
    if module is None:
        return
    if needs > 0.7 * _available():
        bench.skip(name, f"scikit-activeml needs {needs / 2**30:.0f} GiB, available are {_available() / 2**30:.0f}")
        return
    bench.measure(name, size, "scikit-activeml", lambda: query(module), note)


def badge(bench: Bench) -> None:
    """Gradient embeddings: scikit-activeml forms N x K D numbers and their squares, so its batch is cut short.

    At the size of the last row scikit-activeml needs 23 GiB; the rows before it show how its time grows with N.
    """
    sizes = [(20_000, 768, 10, 200, 10), *((N, 768, 100, 200, 10) for N in (2_500, 5_000, 10_000, 20_000))]
    if bench.quick:
        sizes = [(2_000, 64, 10, 50, 50)]
    for N, D, K, B, short in sizes:
        task = Mixture.of(D, K).task(N, L=5 * K)

        def query(pool: Any, task: Task = task, short: int = short) -> Any:
            X, y, clf = _others(task, importlib.import_module("skactiveml.base").SkactivemlClassifier)
            return pool.Badge(random_state=0).query(X, y, clf, fit_clf=False, batch_size=short)

        note = f"a batch of {short} only: for {B}, about {B // short} times as long" if short < B else ""
        _beside_activeml(bench, "badge", f"N={N} D={D} K={K} B={B}", task, B, query, 16 * N * K * D, note)


def coreset(bench: Bench) -> None:
    """k-centre: the same definition, so the largest distance left must agree."""
    N, D, B = (2_000, 64, 50) if bench.quick else (20_000, 512, 100)
    task = Mixture.of(D, 100).task(N, L=100)

    def query(pool: Any) -> Any:
        X, y, _ = _others(
            task, None if pool is None else importlib.import_module("skactiveml.base").SkactivemlClassifier
        )
        return pool.CoreSet(random_state=0).query(X, y, batch_size=B)

    _beside_activeml(bench, "coreset", f"N={N} D={D} L=100 B={B}", task, B, query, 0, "")
    if not bench.quick and "coreset" in strategies.names():
        task = Mixture.of(512, 100).task(100_000, L=100)
        bench.measure("coreset", "N=100000 D=512 L=100 B=1000", _OURS, lambda: _choose("coreset", task, 1_000))


def typiclust(bench: Bench) -> None:
    """Typical samples of clusters; scikit-activeml takes 5 neighbours by default, here 20 as in the paper."""
    N, D, B = (2_000, 64, 50) if bench.quick else (20_000, 512, 200)
    task = Mixture.of(D, 100).task(N, L=50)

    def query(pool: Any) -> Any:
        X, y, _ = _others(task, importlib.import_module("skactiveml.base").SkactivemlClassifier)
        return pool.TypiClust(k=20, random_state=0, cluster_algo_dict={"n_init": 1}).query(X, y, batch_size=B)

    _beside_activeml(bench, "typiclust", f"N={N} D={D} L=50 B={B}", task, B, query, 0, "")


def dropquery(bench: Bench) -> None:
    """Three passes with dropout .75 on both sides; scikit-activeml clusters those that most passes flip."""
    N, D, K, B = (2_000, 64, 10, 50) if bench.quick else (20_000, 512, 100, 200)
    task = Mixture.of(D, K).task(N, L=5 * K)

    def query(pool: Any) -> Any:
        X, y, clf = _others(task, importlib.import_module("skactiveml.base").SkactivemlClassifier)
        strategy = pool.DropQuery(n_dropout_samples=3, random_state=0, cluster_algo_dict={"n_init": 1})
        return strategy.query(X, y, clf, fit_clf=False, batch_size=B)

    _beside_activeml(bench, "dropquery", f"N={N} D={D} K={K} B={B}", task, B, query, 0, "")


def bald(bench: Bench) -> None:
    """Mutual information of ten passes; scikit-activeml's members repeat probabilities that are known."""
    N, D, K, B, passes = (2_000, 64, 10, 50, 10) if bench.quick else (20_000, 512, 100, 200, 10)
    task = Mixture.of(D, K).task(N, L=5 * K, passes=passes)
    assert task.pool.mc_logits_nTK is not None
    mc_logits_nTK: Tensor = task.pool.mc_logits_nTK

    def query(pool: Any) -> Any:
        base = importlib.import_module("skactiveml.base").SkactivemlClassifier
        X, y, _ = _others(task, base)

        class Member(base):  # type: ignore[misc, valid-type]
            def __init__(self, index: int = 0, classes: Any = None, random_state: Any = None) -> None:
                super().__init__(classes=classes, random_state=random_state)
                self.index = index
                self.classes_ = classes

            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
                return self

            def __sklearn_is_fitted__(self) -> bool:
                return True

            def predict_proba(self, X: Any) -> Any:
                assert len(X) == N
                return mc_logits_nTK[:, self.index].softmax(dim=1).double().numpy()

        members = [Member(index, classes=list(range(K))) for index in range(passes)]
        return pool.GreedyBALD(random_state=0).query(X, y, members, fit_ensemble=False, batch_size=B)

    _beside_activeml(bench, "bald", f"N={N} T={passes} K={K} B={B}", task, B, query, 16 * N * passes * K, "")


def linkage(bench: Bench) -> None:
    """Average linkage of cluster_margin beside scipy's, distances included."""
    n, D = (1_000, 64) if bench.quick else (10_000, 512)
    rows_nD = Mixture.of(D, 100).rows(n, seed=0)[0].double()
    size = f"n={n} D={D}"
    _, ours = bench.measure(
        "linkage", size, _OURS, lambda: agglomerative.average_linkage(agglomerative.distances(rows_nD))
    )
    hierarchy = _module(bench, "linkage", "scipy.cluster.hierarchy")
    distance = _module(bench, "linkage", "scipy.spatial.distance")
    if hierarchy is not None and distance is not None:

        def scipy_heights() -> Tensor:
            tree = hierarchy.linkage(distance.pdist(rows_nD.numpy()), "average")
            return torch.from_numpy(tree[:, 2].copy())

        def check(heights_m: Tensor) -> str:
            torch.testing.assert_close(ours, heights_m, rtol=1e-9, atol=1e-9)
            return "the same heights"

        bench.measure("linkage", size, "scipy", scipy_heights, check)


def herding(bench: Bench) -> None:
    """Lazy picks of uherding beside the loop that computes every gain at every pick from a dense matrix.

    Nearly orthogonal rows and a wide kernel, as in the first rounds, make all gains similar, the worst case.
    """
    m, D, B = (1_500, 64, 40) if bench.quick else (5_000, 512, 200)
    rows_mD = torch.nn.functional.normalize(Mixture.of(D, 100).rows(m, seed=0)[0].double(), dim=1)
    weights_m = torch.rand(m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = f"m={m} D={D} B={B}"

    def dense() -> list[int]:
        pairs_mm = torch.cdist(rows_mD, rows_mD).square_().neg_().exp_()
        covered_m, picks = torch.zeros(m, dtype=torch.float64), list[int]()
        for _ in range(B):
            gains_m = (pairs_mm - covered_m).clamp_(min=0) @ weights_m
            gains_m[picks] = -1
            picks.append(int(gains_m.argmax()))
            covered_m = torch.maximum(covered_m, pairs_mm[picks[-1]])
        return picks

    ours = bench.measure("herding", size, _OURS, lambda: herd(rows_mD, weights_m, rows_mD[:0], 1.0, B))

    def agreement(picks: list[int]) -> str:
        same = sum(one == other for one, other in zip(ours.tolist(), picks, strict=True))
        return f"{same} of {B} picks the same"

    bench.measure("herding", size, "dense loop", dense, agreement)


def bait(bench: Bench) -> None:
    """Bait from features to queries, beside the published steps: every trace from the matrices, n D² per pick.

    The other side runs for the first steps alone, on the rows of the subset.
    """
    sizes = [(2_000, 64, 10, 20)] if bench.quick else [(20_000, 384, 100, 200), (100_000, 768, 100, 200)]
    for N, D, K, B in sizes:
        task = Mixture.of(D, K).task(N, L=5 * K)
        size = f"N={N} D={D} K={K} B={B}"
        bench.measure("bait", size, _OURS, lambda task=task, B=B: _choose("bait", task, B))  # type: ignore[misc]
        strategy = strategies.load("bait")
        state = strategy.prepare(task.labelled, task.head, 0)
        kept = strategy.keep(strategy.score(task.pool, state), state, B)
        rows_mD = torch.nn.functional.normalize(kept.column("embeddings"), dim=1)
        rows_mD = rows_mD * kept.scores_n.sqrt()[:, None]
        pool_DD, steps = rows_mD.T @ rows_mD / len(rows_mD), 6

        def published(rows_mD: Tensor = rows_mD, pool_DD: Tensor = pool_DD, steps: int = steps) -> list[int]:
            inverse_DD, picks = torch.eye(len(pool_DD)), list[int]()
            for _ in range(steps):
                solved_mD = rows_mD @ inverse_DD
                gains_m = ((solved_mD @ pool_DD) * solved_mD).sum(dim=1) / (1 + (solved_mD * rows_mD).sum(dim=1))
                gains_m[picks] = -torch.inf
                picks.append(int(gains_m.argmax()))
                solved_D = solved_mD[picks[-1]]
                share = 1 / (1 + float(solved_D @ rows_mD[picks[-1]]))
                inverse_DD = inverse_DD - share * torch.outer(solved_D, solved_D)
            return picks

        bench.measure("bait", size, "published steps", published, f"for {steps} of the {2 * B} steps")


def stream(bench: Bench) -> None:
    """Score a pool from shards on disk: memory must not grow with the pool, time must grow in proportion."""
    D, K, budget = 512, 100, 1_000
    sizes = [20_000, 40_000, 80_000] if bench.quick else [250_000, 500_000, 1_000_000]
    mixture = Mixture.of(D, K)
    labelled = mixture.labelled(10 * K)
    with tempfile.TemporaryDirectory(prefix="alfamix-benchmark-") as name:
        folder = Path(name)
        parts = 8
        for part in range(parts):
            (folder / str(part)).mkdir()
            writer = FeatureWriter(folder / str(part))
            start, stop = part * sizes[-1] // parts, (part + 1) * sizes[-1] // parts
            for block in range(start, stop, _STREAM_BLOCK):
                count = min(_STREAM_BLOCK, stop - block)
                embeddings_nD = mixture.rows(count, seed=block)[0].half()
                writer.add({"positions": torch.arange(block, block + count), "embeddings": embeddings_nD})
            writer.close()

        def blocks(shard: Sequence[int]) -> Iterator[Features]:
            for part in shard:
                for columns in read_blocks(folder / str(part), _STREAM_BLOCK):
                    embeddings_nD = columns["embeddings"]
                    logits_nK = mixture.head(embeddings_nD.float())
                    yield Features(columns["positions"], embeddings_nD, logits_nK)

        def score(strategy_name: str, shards: Sequence[Sequence[int]]) -> str:
            strategy = strategies.load(strategy_name)
            state = strategy.prepare(labelled, mixture.head, 0)
            kept: list[Scores] = [score_shard(strategy, blocks(shard), state, budget) for shard in shards]
            rows = [len(part) for part in kept]
            return f"float16, {len(shards)} shards, {sum(rows)} rows sent; RssAnon after {_anonymous() / _MB:.0f} MiB"

        cuts = [(2, sizes[0], [[0], [1]]), (4, sizes[1], [[0], [1], [2], [3]])]
        cuts += [(8, sizes[2], [list(range(8))]), (8, sizes[2], [[part] for part in range(8)])]
        for _, N, shards in cuts:
            for strategy_name in ("entropy", "alfamix"):
                bench.measure(
                    "stream",
                    f"N={N} D={D} K={K}",
                    f"{strategy_name}, {len(shards)} shard(s)",
                    lambda strategy_name=strategy_name, shards=shards: score(strategy_name, shards),  # type: ignore[misc]
                    str,
                )


def parts(bench: Bench) -> None:
    """Choose from the files of eight shards: memory above the start must not hold the pool."""
    sizes = [("coreset", 100_000, 512, 100, 1_000), ("badge", 20_000, 768, 100, 200)]
    sizes += [("typiclust", 50_000, 512, 100, 200), ("class_threshold", 100_000, 64, 1_000, 200)]
    if bench.quick:
        sizes = [("coreset", 10_000, 64, 10, 100), ("badge", 2_000, 64, 10, 50)]
        sizes += [("typiclust", 4_000, 64, 10, 50), ("class_threshold", 4_000, 64, 50, 50)]
    for name, N, D, K, B in sizes:
        mixture = Mixture.of(D, K)
        strategy = strategies.load(name)
        state = strategy.prepare(mixture.labelled(100), mixture.head, 0)
        with tempfile.TemporaryDirectory(prefix="alfamix-benchmark-") as disk:
            folders = [Path(disk) / str(shard) for shard in range(8)]
            for shard, folder in enumerate(folders):
                positions_n = torch.arange(shard * N // 8, (shard + 1) * N // 8)
                embeddings_nD, _ = mixture.rows(len(positions_n), seed=shard)
                features = Features(positions_n, embeddings_nD, mixture.head(embeddings_nD))
                folder.mkdir()
                write_scores(folder, score_shard(strategy, [features], state, B))
            size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
            del features, embeddings_nD, positions_n

            def choose(
                strategy: Strategy = strategy, state: Any = state, folders: Sequence[Path] = folders, B: int = B
            ) -> Tensor:
                scores = Scores.merge([read_scores(folder) for folder in folders])
                return strategy.select(scores, state, B, torch.Generator().manual_seed(0))

            note = f"from 8 shards on disk, {size / _MB:.0f} MiB"
            bench.measure("parts", f"{name} N={N} D={D} K={K} B={B}", _OURS, choose, note)


def labels(bench: Bench) -> None:
    """The work that grows with the labelled samples: the anchors, the state, and a distance of queries from labels."""
    L, D, K, B = (5_000, 64, 10, 20) if bench.quick else (100_000, 512, 100, 50)
    mixture = Mixture.of(D, K)
    full = mixture.labelled(L)
    labelled = Labelled(full.embeddings_LD.half(), full.logits_LK, full.labels_L)
    size, strategy = f"L={L} D={D} K={K}", strategies.load("alfamix")
    note = f"labelled rows {labelled.embeddings_LD.nbytes / _MB:.0f} MiB"
    bench.measure("labels", size, "alfamix prepares", lambda: strategy.prepare(labelled, mixture.head, 0), note)
    bench.measure("labels", size, "class means", lambda: class_means(labelled))
    queries_nD, _ = mixture.rows(B, seed=3)

    def judged() -> int:
        rule = Apart(queries_nD, 1.0, labelled.embeddings_LD)
        accepted = [index for index in range(B) if rule.accepts(index)]
        for index in accepted:
            rule.take(index)
        return len(accepted)

    bench.measure("labels", size, f"{B} queries apart", judged, lambda accepted: f"{accepted} accepted")


def cold(bench: Bench) -> None:
    """The cold start: typiclust without a label, from rows in half precision that stay where they are."""
    sizes = [(10_000, 64, 20)] if bench.quick else [(100_000, 768, 20), (1_000_000, 768, 20)]
    for N, D, B in sizes:
        if _available() < 8 * N * D:
            bench.skip("cold", f"N={N} D={D}: needs {8 * N * D / _MB:.0f} MiB of memory")
            continue
        mixture = Mixture.of(D, 100)
        rows = Rows(tuple(mixture.rows(min(50_000, N), seed=start)[0].half() for start in range(0, N, 50_000)))
        strategy = strategies.load("typiclust")
        state = strategy.prepare(mixture.labelled(0), mixture.head, 0)
        scores = Scores(torch.arange(N), torch.zeros(N), {"embeddings": rows})

        def choose(strategy: Strategy = strategy, scores: Scores = scores, state: Any = state, B: int = B) -> Tensor:
            return strategy.select(scores, state, B, torch.Generator().manual_seed(0))

        bench.measure("cold", f"N={N} D={D} B={B}", "typiclust", choose)


def everything(bench: Bench) -> None:
    """Every strategy of ours on one pool, from features to queries; the ratio is beside the first."""
    N, D, K, B = (2_000, 64, 10, 50) if bench.quick else (20_000, 512, 100, 200)
    task = Mixture.of(D, K).task(N, L=5 * K, passes=5)
    for name in strategies.names():
        if all(task.pool.column(column) is not None for column in strategies.load(name).columns):
            bench.measure("all", f"N={N} D={D} K={K} B={B}", name, lambda name=name: _choose(name, task, B))  # type: ignore[misc]
        else:
            bench.skip("all", f"{name}: needs a column that only a whole model gives")


ROWS: dict[str, Callable[[Bench], None]] = {
    "alfamix": alfamix,
    "floor": floor,
    "kmeans": clustering,
    "badge": badge,
    "coreset": coreset,
    "typiclust": typiclust,
    "bald": bald,
    "dropquery": dropquery,
    "linkage": linkage,
    "herding": herding,
    "bait": bait,
    "stream": stream,
    "parts": parts,
    "labels": labels,
    "cold": cold,
    "all": everything,
}


def _environment(threads: int) -> dict[str, str | int]:
    """Return the machine and the versions that the numbers depend on."""
    versions = {}
    for package in ("torch", "scikit-learn", "scikit-activeml", "faiss-cpu", "scipy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "python": platform.python_version(),
        **versions,
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "load average (1, 5, 15 min) at the start": load,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named rows, or all if none is named; return 0."""
    parser = argparse.ArgumentParser(description="Time and memory of acquisition beside others' code.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="small sizes: under two minutes on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to which the table is written as JSON, too")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of calls, of which the median counts (default 3)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="number of threads on every side (default: all cores)"
    )
    options = parser.parse_args(arguments)
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; known: {', '.join(ROWS)}")
    torch.set_num_threads(options.threads)
    with contextlib.suppress(ImportError):
        importlib.import_module("threadpoolctl").threadpool_limits(options.threads)
    warnings.filterwarnings("ignore", module=r"(skactiveml|sklearn|faiss)")
    environment = _environment(options.threads)
    print("; ".join(f"{key} {value}" for key, value in environment.items()))
    bench = Bench(options.quick, options.repeats)
    started = time.perf_counter()
    for row in options.rows or ROWS:
        ROWS[row](bench)
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{time.perf_counter() - started:.0f} s in all; load average at the end {load}")
    if options.json is not None:
        environment["load average at the end"] = load
        table = {"environment": environment, "quick": options.quick, "lines": [asdict(line) for line in bench.lines]}
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
