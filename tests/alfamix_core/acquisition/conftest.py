import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from alfamix_core.acquisition.blocks import map_rows, products
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from tests.alfamix_core.acquisition import stand_in, without_hypothesis

if importlib.util.find_spec("hypothesis") is None:
    without_hypothesis.install()
if not torch.cuda.is_available():
    # torch asks which devices there are at the first backward pass of a process, and never again
    stand_in.device()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``device`` on the CPU and on CUDA, or where there is none on the stand-in.

    An operator on the stand-in costs some 30 µs, so it leaves out what says nothing of placement that another test
    does not: properties, which repeat one call with many values, and tests marked ``on_real_devices``.
    """
    if "device" not in metafunc.fixturenames:
        return
    property_test = getattr(metafunc.function, "is_hypothesis_test", False)
    left_out = property_test or metafunc.definition.get_closest_marker("on_real_devices")
    others = ["cuda"] if torch.cuda.is_available() else [] if left_out else [stand_in.NAME]
    metafunc.parametrize("device", ["cpu", *others], indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where a test runs; sums on CUDA are only repeatable when told to be, and what never is must raise."""
    if request.param != "cpu":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    yield stand_in.device() if request.param == stand_in.NAME else torch.device(request.param)
    torch.use_deterministic_algorithms(False)


@dataclass(frozen=True)
class Task:
    """A pool with all columns, its labelled samples and the head."""

    pool: Features
    labelled: Labelled
    head: LinearHead

    def part(self, start: int, stop: int) -> Features:
        return self.rows(slice(start, stop))

    def rows(self, chosen: Tensor | slice) -> Features:
        pool = self.pool
        return Features(
            pool.positions_n[chosen],
            pool.embeddings_nD[chosen],
            pool.logits_nK[chosen],
            pool.mc_logits_nTK[chosen],
            pool.deepfool_n[chosen],
        )


@pytest.fixture
def build(device: torch.device) -> Callable[..., Task]:
    """A task from its parts, with the logits of the head."""

    def build(embeddings_nD: Tensor, labelled_LD: Tensor, labels_L: Tensor, head: LinearHead) -> Task:
        positions_n = torch.arange(len(embeddings_nD), device=device)
        head = LinearHead(head.weight_KD.to(device), head.bias_K.to(device))
        embeddings_nD, labelled_LD = embeddings_nD.to(device), labelled_LD.to(device)
        rows_nD = embeddings_nD.float()
        logits_nK = head(rows_nD)
        # three passes that each lose every third feature
        kept_TD = torch.arange(rows_nD.shape[1], device=device) % 3 != torch.arange(3, device=device)[:, None]
        mc_logits_nTK = torch.stack(
            [
                map_rows(lambda rows_nD, kept_D=kept_D: products(rows_nD * kept_D, head.weight_KD.T), rows_nD)
                for kept_D in kept_TD
            ],
            dim=1,
        )
        # as if the gap were the norm, and the last class could not be left
        gap_n = logits_nK.topk(2, dim=1).values.diff(dim=1)[:, 0].abs()
        deepfool_n = torch.where(logits_nK.argmax(dim=1) == logits_nK.shape[1] - 1, -1 - gap_n, gap_n)
        pool = Features(positions_n, embeddings_nD, logits_nK, mc_logits_nTK, deepfool_n)
        return Task(pool, Labelled(labelled_LD, head(labelled_LD.float()), labels_L.to(device)), head)

    return build


@pytest.fixture
def make_task(build: Callable[..., Task]) -> Callable[..., Task]:
    """A random task of Gaussian classes."""

    def make(
        N: int = 200,
        D: int = 8,
        K: int = 4,
        L: int = 20,
        *,
        classes: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Task:
        random = torch.Generator().manual_seed(seed)
        centres_KD = 2 * torch.randn(K, D, generator=random)
        owners_n = torch.randint(K, (N,), generator=random)
        labels_L = torch.randint(classes or K, (L,), generator=random)
        embeddings_nD = centres_KD[owners_n] + torch.randn(N, D, generator=random)
        labelled_LD = centres_KD[labels_L] + torch.randn(L, D, generator=random)
        head = LinearHead(centres_KD + torch.randn(K, D, generator=random), torch.randn(K, generator=random))
        return build(embeddings_nD.to(dtype), labelled_LD.to(dtype), labels_L, head)

    return make


@pytest.fixture
def generator() -> Callable[[], torch.Generator]:
    return lambda: torch.Generator().manual_seed(7)
