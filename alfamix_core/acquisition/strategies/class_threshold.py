"""Class threshold: query where the labels of each class end and others begin, the rarest class first.

Needs logits, and the labels and logits of the labelled samples. Costs K N log L and K/16 passes over the logits, which
are never in memory as a whole: beside one block of them it holds 16 keys of 8 bytes per sample and a few columns.
Exact under sharding because every shard sends all its logits: only the whole pool tells which samples lie between two
labels.

Choose it for imbalance: a class with few labels is asked about as often as a common one. It is what remains of
GALAXY (Zhang, Katz-Samuels, Nowak, ICML 2022) and DIRECT (Nuggehalli et al., 2023) for people who label between
rounds: both reveal the label of a query before they choose the next, which a batch cannot. It is neither of them,
so it does not carry their names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import ranking, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.probabilities import log_probabilities, score_logits, without_top
from alfamix_core.acquisition.rows import Column
from alfamix_core.acquisition.strategies.margin import margins
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"logits"})
NEEDS_LABELS = True
USES_HEAD = False

keep = subset.whole_pool

_BLOCK_ROWS = 2048
_CLASSES = 16
"""Classes whose keys one pass over the logits computes."""


@dataclass(frozen=True)
class State:
    """The labels and logits of the labelled samples.

    Attributes:
        logits_LK: (L, K).
        labels_L: (L,) int64 in [0, K).
    """

    logits_LK: Tensor
    labels_L: Tensor


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> State:
    """Keep labels and logits of the labelled samples.

    Args:
        labelled: L >= 1 labelled samples; logits and labels are read.
        head: Not read.
        tunables: No tunables.
        seed: Not read: nothing is random.

    Returns:
        The state.
    """
    return State(labelled.logits_LK, labelled.labels_L)


def score(block: Features, state: State) -> Scores:
    """Score each sample by one minus its margin, by which queries are filled up after the classes' turns.

    Args:
        block: n pool samples; only positions and logits (n, K) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n in [0, 1]; 1 is a tie of two classes. ``select`` reads the row ``logits``.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.logits_nK is not None
    scores = score_logits(block, margins)
    return Scores(scores.positions_n, scores.scores_n, {"logits": block.logits_nK})


@dataclass(frozen=True)
class Memberships:
    """The likeness of each sample to each class, a few classes at a time.

    Attributes:
        logits_nK: (n, K), in memory or not.
        top_n: (n,) float32, the largest logit.
        norm_n: (n,) float64, LSE of the logits.
        rest_n: (n,) float64, 1 - max p.
    """

    logits_nK: Column
    top_n: Tensor
    norm_n: Tensor
    rest_n: Tensor

    @staticmethod
    def of(logits_nK: Column) -> "Memberships":
        """Return the memberships of (n, K) logits, which are read once, a block at a time."""
        n, device = len(logits_nK), logits_nK.device
        top_n = torch.empty(n, dtype=logits_nK.dtype, device=device)
        norm_n, rest_n = torch.empty(2, n, dtype=torch.float64, device=device)
        # into columns that are there already: small results among large blocks would keep the heap from shrinking
        for start in range(0, n, _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            block_mK = logits_nK[part]
            top_n[part] = block_mK.amax(dim=1)
            norm_n[part] = block_mK.to(torch.float64).logsumexp(dim=1)
            rest_n[part] = without_top(log_probabilities(block_mK))
        return Memberships(logits_nK, top_n, norm_n, rest_n)

    def keys(self, classes: range) -> Tensor:
        """Return numbers that sort samples by (p_k - max p, p_k) and keep their digits at both ends.

        Reads the logits once, a block at a time.

        Args:
            classes: Consecutive classes.

        Returns:
            (len(classes), n) float64: 1 / (1 - p_k) >= 1 where no class is more likely, else 1 - max p + p_k < 1.
        """
        keys_kn = torch.empty((len(classes), len(self.logits_nK)), dtype=torch.float64, device=self.top_n.device)
        for start in range(0, len(self.logits_nK), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            logits_km = self.logits_nK[part][:, classes.start : classes.stop].T.contiguous()
            rest_m = self.rest_n[part]
            share_km = (logits_km.to(torch.float64) - self.norm_n[part]).exp()
            below_km = (rest_m + share_km).clamp(max=1 - 2**-53)
            keys_kn[:, part] = torch.where(logits_km == self.top_n[part], 1 / rest_m, below_km)
        return keys_kn


@dataclass(frozen=True)
class Runs:
    """The pool cut into runs by the labelled samples, from most to least like a class; only the runs in use are sorted.

    Attributes:
        keys_n: (n,) float64.
        run_n: (n,) int64, the number of labelled samples before each row, those with an equal key included.
        ends_l: (L + 1,) int64, the number of pool samples before the end of each run; all but the last are the numbers
            before each label.
    """

    keys_n: Tensor
    run_n: Tensor
    ends_l: Tensor

    @staticmethod
    def of(keys_n: Tensor, keys_L: Tensor) -> "Runs":
        """Return the runs of the pool's keys between the labelled samples' keys, the latter descending."""
        run_n = torch.searchsorted(-keys_L, -keys_n, right=True)
        return Runs(keys_n, run_n, run_n.bincount(minlength=len(keys_L) + 1).cumsum(dim=0))

    def rows(self, ranks: list[int]) -> list[int]:
        """Return the rows at some ranks of the sorted pool, equal keys in the order of their rows."""
        if not ranks:
            return []
        ranks_m = torch.tensor(ranks, device=self.keys_n.device)
        runs_m = torch.searchsorted(self.ends_l, ranks_m, right=True)
        first, last = int(runs_m.min()), int(runs_m.max())
        rows_u = ((self.run_n >= first) & (self.run_n <= last)).nonzero()[:, 0]
        start = int(self.ends_l[first - 1]) if first else 0
        by_key_u = self.keys_n[rows_u].sort(descending=True, stable=True).indices
        return rows_u[by_key_u[ranks_m - start]].tolist()


def spread(length: int, count: int) -> list[int]:
    """Return ranks that cut a run into equal pieces: the best search if all answers arrive together.

    Args:
        length: Length of the run.
        count: Number of ranks.

    Returns:
        min(count, length) distinct ranks in [0, length), ascending.
    """
    count = min(count, length)
    return [(rank + 1) * (length + 1) // (count + 1) - 1 for rank in range(count)]


def _around(cut: int, length: int, count: int) -> list[int]:
    """Return the ranks around a cut before rank ``cut``: half before it, and the odd one, half after it."""
    count = min(count, length)
    start = min(max(cut - (count + 1) // 2, 0), length - count)
    return list(range(start, start + count))


def asked_ranks(ranks_L: Tensor, is_k_L: Tensor, length: int, own: int, count: int) -> list[int]:
    """Return the ranks to query for a class, of the pool samples sorted from most to least like it.

    Args:
        ranks_L: (L,) int64, ascending, the number of pool samples before each labelled one.
        is_k_L: (L,) bool, whether its label is this class.
        length: Number of pool samples.
        own: Number of pool samples that the model predicts as the class.
        count: Number of queries of this class, >= 1.

    Returns:
        Up to ``count`` ranks in [0, length), the middle first. They are spread over the shortest run between two
        labels of which one is the class and one is not, the first if two are equally short. If there is no such run,
        they surround the cut that the labels contradict least; of several, the one nearest to the model's own.
    """
    gaps_l = ranks_L.diff()
    gaps_l = torch.where((is_k_L[1:] != is_k_L[:-1]) & (gaps_l > 0), gaps_l, length + 1)
    if len(gaps_l) and int(gaps_l.min()) <= length:
        shortest = int(gaps_l.argmin())
        start, run = int(ranks_L[shortest]), int(gaps_l[shortest])
        chosen = [start + rank for rank in spread(run, count)]
        middle = start + (run - 1) / 2
    else:
        none_1 = ranks_L.new_zeros(1)
        wrong_above_l = torch.cat([none_1, (~is_k_L).cumsum(dim=0)])
        wrong_below_l = int(is_k_L.sum()) - torch.cat([none_1, is_k_L.cumsum(dim=0)])
        lows_l = torch.cat([none_1, ranks_L])
        highs_l = torch.cat([ranks_L, none_1 + length])
        cuts_l = torch.minimum(torch.maximum(none_1 + own, lows_l), highs_l)
        errors_l = wrong_above_l + wrong_below_l
        far_l = torch.where(errors_l == errors_l.min(), (cuts_l - own).abs(), length + 1)
        cut = int(cuts_l[far_l.argmin()])
        chosen = _around(cut, length, count)
        middle = cut - 0.5
    return sorted(chosen, key=lambda rank: (abs(rank - middle), rank))


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Query for each class in turn, the one with the fewest labels first, and fill up by margin.

    For each class, pool and labelled samples are sorted by p_k - max p, then p_k. Somewhere between a label "is k"
    and a label "is not k" the threshold of the class lies; ⌈need / K⌉ queries are spread evenly over the shortest
    run between two such labels.

    Args:
        scores: n rows, positions ascending, with ``logits``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the turns, then the smallest margins, ties by position.
            Where rules refuse some of the turns, the classes have another turn among the samples not offered yet.
        generator: Not read.
    """
    rest = scores
    while batch.missing and len(rest):
        taken, refused = len(batch.taken), batch.refused
        for row in _turns(rest, state, batch.missing):
            if batch.missing:
                batch.offer(int(rest.positions_n[row]))
        if batch.refused == refused or len(batch.taken) == taken:
            break
        rest = rest.take(batch.untouched(rest.positions_n).nonzero()[:, 0])
    batch.offer_all(scores.positions_n[ranking.order(scores)])


def _turns(scores: Scores, state: State, need: int) -> list[int]:
    """Return the rows to query, distinct, one per class in turn."""
    logits_nK = scores.rows["logits"]
    K, device, count = logits_nK.shape[1], logits_nK.device, -(-min(need, len(scores)) // logits_nK.shape[1])
    pool, labelled = Memberships.of(logits_nK), Memberships.of(state.logits_LK.to(device))
    labels_L = state.labels_L.to(device)
    asked: list[list[int]] = []
    for first in range(0, K, _CLASSES):
        classes = range(first, min(first + _CLASSES, K))
        for k, keys_n, keys_L in zip(classes, pool.keys(classes), labelled.keys(classes), strict=True):
            by_key_L = keys_L.sort(descending=True, stable=True)
            runs = Runs.of(keys_n, by_key_L.values)
            own = int((keys_n >= 1).sum())
            chosen = asked_ranks(runs.ends_l[:-1], labels_L[by_key_L.indices] == k, len(scores), own, count)
            asked.append(runs.rows(chosen))
    rarest_first = labels_L.bincount(minlength=K).sort(stable=True).indices.tolist()
    turns = [asked[k][turn] for turn in range(count) for k in rarest_first if turn < len(asked[k])]
    return list(dict.fromkeys(turns))
