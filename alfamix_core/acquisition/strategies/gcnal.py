"""CoreGCN: query samples far from the labelled ones in the features of a graph network that separates the two.

Needs embeddings, of pool and labelled samples; a random subset of m = 10,000 samples of the pool,
larger only if more queries are asked for. Fitting costs 200 steps of 12 (m + L) 128 D operations, about a minute at m =
10,000 and D = 768 on two cores, the choice m B 129. A shard sends its m samples with the smallest random numbers,
exactly; memory holds (m + L) (2 D + 512) numbers, and never the m x m adjacency: its products are computed from its
factors.

Choose it where the labelled set is small and lopsided, and a minute of fitting does not matter; it seldom beats
``coreset`` by much.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.k_centre import farthest_first
from alfamix_core.acquisition.points import Euclidean, lower
from alfamix_core.acquisition.tunables.gcnal import Tunables
from alfamix_core.acquisition.types import Head, Labelled, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = True
USES_HEAD = False

score = subset.unscored

_HIDDEN = 128
_DROPOUT = 0.3
_STEPS = 200
_UNLABELLED_WEIGHT = 1.2


@dataclass(frozen=True)
class State:
    """The labelled samples, and how the network is used.

    Attributes:
        embeddings_LD: (L, D) of the labelled samples; L >= 1.
        tunables: Size of the subset, and the features that are compared.
        noise_key: Key of the subset's random numbers.
    """

    embeddings_LD: Tensor
    tunables: Tunables
    noise_key: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the labelled embeddings.

    Args:
        labelled: L >= 1 labelled samples; only the embeddings are read.
        head: Not read.
        tunables: Size of the subset, and the features that are compared.
        seed: Seed of the subset.

    Returns:
        The state.
    """
    return State(labelled.embeddings_LD, tunables, noise.fold(seed, noise.GCN_SUBSET))


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the max(m, reach) rows with the smallest random numbers, in position order."""
    return subset.smallest(scores, state.noise_key, max(state.tunables.subset, reach))


@dataclass(frozen=True)
class Adjacency:
    """The graph of cosine similarities S = F Fᵀ - I, columns divided by their sums, plus I; as factors.

    A sum of similarities can be small or negative where features have signs; below 1 it counts as 1.

    Attributes:
        rows_nD: (n, D) F: rows of norm 1.
        degrees_n1: (n, 1): column sums of S, at least 1.
    """

    rows_nD: Tensor
    degrees_n1: Tensor

    @staticmethod
    def of(rows_nD: Tensor) -> "Adjacency":
        """Return the graph of (n, D) rows of any norm."""
        rows_nD = normalize(rows_nD, dim=1)
        return Adjacency(rows_nD, (rows_nD @ rows_nD.sum(dim=0)[:, None] - 1).clamp(min=1))

    def __matmul__(self, values_nX: Tensor) -> Tensor:
        """Return A V for (n, X) values, without a matrix of n x n."""
        shares_nX = values_nX / self.degrees_n1
        products_nX: Tensor = self.rows_nD @ (self.rows_nD.T @ shares_nX)
        return products_nX - shares_nX + values_nX


def graph_features(rows_mD: Tensor, labelled_LD: Tensor, seed: int) -> Tensor:
    """Fit a graph network of two layers to tell labelled from unlabelled rows, and return its layers' outputs.

    Args:
        rows_mD: (m, D) unlabelled, in position order.
        labelled_LD: (L, D), L >= 1.
        seed: Seed of weights and dropout.

    Returns:
        (m + L, 129) float32 on the CPU, where the network is fitted: the hidden units, then the logit, both without
        dropout; the unlabelled rows first.
    """
    generator = torch.Generator().manual_seed(seed)
    m = len(rows_mD)
    graph = Adjacency.of(torch.cat([rows_mD.cpu().to(torch.float32), labelled_LD.cpu().to(torch.float32)]))
    seen_nD = graph @ graph.rows_nD

    def weights(*shape: int) -> Tensor:
        uniform = torch.rand(shape, generator=generator) * 2 - 1
        return (uniform / math.sqrt(shape[-1])).requires_grad_()

    D = seen_nD.shape[1]
    first_DX, first_X, last_X1, last_1 = weights(D, _HIDDEN), weights(_HIDDEN), weights(_HIDDEN, 1), weights(1)
    optimiser = torch.optim.Adam([first_DX, first_X, last_X1, last_1], lr=1e-3, weight_decay=5e-4)
    with torch.enable_grad():
        for _ in range(_STEPS):
            hidden_nX = torch.relu(seen_nD @ first_DX + first_X)
            stays_nX = torch.rand(hidden_nX.shape, generator=generator) >= _DROPOUT
            logits_n = ((graph @ (hidden_nX * stays_nX / (1 - _DROPOUT))) @ last_X1 + last_1)[:, 0]
            unlabelled = logsigmoid(-logits_n[:m]).mean() if m else logits_n.new_zeros(())
            loss = -logsigmoid(logits_n[m:]).mean() - _UNLABELLED_WEIGHT * unlabelled
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        hidden_nX = torch.relu(seen_nD @ first_DX + first_X)
        return torch.cat([hidden_nX, (graph @ hidden_nX) @ last_X1 + last_1], dim=1)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Choose one by one the sample farthest from the labelled and the chosen ones in the network's features.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries, best first; ties by position. Where all of the subset was offered, the
            choice continues on the next one, with the queries among the labelled samples.
        generator: Source of the seed of weights and dropout.

    Source:
        Caramalau, Bhattarai, Kim, "Sequential graph convolutional network for active learning", CVPR 2021: CoreGCN.
    """
    seed = noise.draw_seed(generator)
    labelled_LD = state.embeddings_LD
    training_seed = noise.fold(seed, noise.GCN_TRAINING) >> 1
    for kept in subset.in_turns(scores, state, batch, keep):
        rows_mD, m = kept.column("embeddings"), len(kept)
        seen_nX = graph_features(rows_mD, labelled_LD, training_seed)
        points = Euclidean(seen_nX[:, :_HIDDEN] if state.tunables.features == "hidden" else seen_nX)
        pool, nearest_m = points.take(slice(0, m)), torch.full((m,), torch.inf, dtype=torch.float64)
        lower(pool, nearest_m, points.take(slice(m, None)))
        positions_m = kept.positions_n.cpu()
        picks = farthest_first(pool, nearest_m, positions_m, min(batch.missing, m), seed, batch.by_row(positions_m))
        labelled_LD = torch.cat([labelled_LD, rows_mD[picks.to(rows_mD.device)].to(labelled_LD)])
