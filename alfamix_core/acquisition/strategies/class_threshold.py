"""Class threshold: query where the labels of each class give way to others, the rarest class first.

Needs logits, and the labels and logits of the labelled samples. Costs K sorts of the pool, K N log N, in memory the
N K logits and a few columns of N. Exact under sharding because every shard sends all its logits: what lies between
two labels is only known with the whole pool.

Choose it for imbalance: a class with few labels is asked about as often as a common one. It is what is left of
GALAXY (Zhang, Katz-Samuels, Nowak, ICML 2022) and DIRECT (Nuggehalli et al., 2023) for people who label between
rounds: both reveal the label of a query before they choose the next, which a batch cannot. It is neither of them,
so it does not bear their names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.probabilities import log_probabilities, score_logits, without_top
from alfamix_core.acquisition.strategies.margin import margins
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"logits"})
NEEDS_LABELS = True
USES_HEAD = False

_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class State:
    """The labels and how the model sees their samples.

    Attributes:
        logits_LK: (L, K).
        labels_L: (L,) int64 in [0, K).
    """

    logits_LK: Tensor
    labels_L: Tensor


def prepare(labelled: Labelled, head: Head, *, seed: int) -> State:
    """Keep labels and logits of the labelled samples.

    Args:
        labelled: L >= 1 labelled samples; logits and labels are read.
        head: not read.
        seed: not read: nothing is random.

    Returns:
        The state.

    Raises:
        InputError: a logit is not finite.
    """
    bad = (~labelled.logits_LK.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise InputError(f"labelled sample {int(bad[0])}: logits has a value that is not finite")
    return State(labelled.logits_LK, labelled.labels_L)


def score(block: Features, state: State) -> Scores:
    """Score each sample by one minus its margin, which fills up what the classes leave.

    Args:
        block: n pool samples; only positions and logits (n, K) are read.
        state: from ``prepare``.

    Returns:
        scores_n in [0, 1]; 1 is a tie of two classes. The row ``logits`` is what the classes sort.

    Raises:
        InputError: there are fewer than two classes.
    """
    assert block.logits_nK is not None
    scores = score_logits(block, margins)
    return Scores(scores.positions_n, scores.scores_n, {"logits": block.logits_nK})


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return all rows: any of them can lie between two labels."""
    return scores


@dataclass(frozen=True)
class Memberships:
    """How much each sample looks like each class, a class at a time.

    Attributes:
        logits_nK: (n, K).
        top_n: (n,) float32, the largest logit.
        norm_n: (n,) float64, LSE of the logits.
        rest_n: (n,) float64, 1 - max p.
    """

    logits_nK: Tensor
    top_n: Tensor
    norm_n: Tensor
    rest_n: Tensor

    @staticmethod
    def of(logits_nK: Tensor) -> "Memberships":
        """Return them for (n, K) logits; no K columns of float64 are held for all rows."""
        blocks = torch.split(logits_nK, _BLOCK_ROWS)
        norms = [block.to(torch.float64).logsumexp(dim=1) for block in blocks]
        rests = [without_top(log_probabilities(block)) for block in blocks]
        return Memberships(logits_nK, logits_nK.amax(dim=1), torch.cat(norms), torch.cat(rests))

    def keys(self, k: int) -> Tensor:
        """Return a number that sorts samples by (p_k - max p, p_k) and keeps its digits at both ends.

        Args:
            k: the class.

        Returns:
            (n,) float64: 1 / (1 - p_k) >= 1 where no class is more likely, else 1 - max p + p_k < 1.
        """
        logits_n = self.logits_nK[:, k]
        share_n = (logits_n.to(torch.float64) - self.norm_n).exp()
        return torch.where(logits_n == self.top_n, 1 / self.rest_n, (self.rest_n + share_n).clamp(max=1 - 2**-53))


def spread(length: int, count: int) -> list[int]:
    """Return places of a run that cut it into equal pieces: the best search if all answers come at once.

    Args:
        length: of the run.
        count: number of places.

    Returns:
        min(count, length) distinct places in [0, length), ascending.
    """
    count = min(count, length)
    return [(place + 1) * (length + 1) // (count + 1) - 1 for place in range(count)]


def _around(cut: int, length: int, count: int) -> list[int]:
    """Return the places next to a cut before place ``cut``: half before it, the odd one too, half after."""
    count = min(count, length)
    start = min(max(cut - (count + 1) // 2, 0), length - count)
    return list(range(start, start + count))


def places(ranks_L: Tensor, is_k_L: Tensor, length: int, own: int, count: int) -> list[int]:
    """Return which of a class's pool samples, sorted from most to least like it, to ask about.

    Args:
        ranks_L: (L,) int64, ascending: the number of pool samples before each labelled one.
        is_k_L: (L,) bool: whether its label is this class.
        length: number of pool samples.
        own: number of pool samples that the model itself takes for the class.
        count: number of queries of this class, >= 1.

    Returns:
        Up to ``count`` places in [0, length), the middle first. They are spread over the shortest run between two
        labels of which one is the class and one is not, the first of equal length. Where there is no such run they
        surround the cut that the labels contradict least; of such cuts, that next to the model's own.
    """
    gaps_l = ranks_L.diff()
    gaps_l = torch.where((is_k_L[1:] != is_k_L[:-1]) & (gaps_l > 0), gaps_l, length + 1)
    if len(gaps_l) and int(gaps_l.min()) <= length:
        shortest = int(gaps_l.argmin())
        start, run = int(ranks_L[shortest]), int(gaps_l[shortest])
        found = [start + place for place in spread(run, count)]
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
        found = _around(cut, length, count)
        middle = cut - 0.5
    return sorted(found, key=lambda place: (abs(place - middle), place))


def select(scores: Scores, state: State, need: int, generator: torch.Generator) -> Tensor:
    """Take of each class in turn, the one with the fewest labels first, and fill up by margin.

    For each class, pool and labelled samples are sorted by p_k - max p, then p_k. Somewhere between a label "is k"
    and a label "is not k" the threshold of the class lies; ⌈need / K⌉ queries are spread evenly over the shortest
    run between two such labels.

    Args:
        scores: n rows, positions ascending, with ``logits``.
        state: from ``prepare``.
        need: number of queries.
        generator: not read.

    Returns:
        (min(need, n),) positions in the order of the turns, then the smallest margins, ties by position.
    """
    need = min(need, len(scores))
    if not need:
        return scores.positions_n[:0]
    logits_nK = scores.column("logits")
    K = logits_nK.shape[1]
    pool, labelled = Memberships.of(logits_nK), Memberships.of(state.logits_LK.to(logits_nK.device))
    labels_L = state.labels_L.to(logits_nK.device)
    asked: list[list[int]] = []
    for k in labels_L.bincount(minlength=K).sort(stable=True).indices.tolist():
        keys_n = pool.keys(k)
        by_key_n = keys_n.sort(descending=True, stable=True)
        by_key_L = labelled.keys(k).sort(descending=True, stable=True)
        # a pool sample with the key of a labelled one comes after it
        ranks_L = torch.searchsorted(-by_key_n.values, -by_key_L.values)
        own = int((keys_n >= 1).sum())
        found = places(ranks_L, labels_L[by_key_L.indices] == k, len(scores), own, -(-need // K))
        asked.append(by_key_n.indices[torch.tensor(found, device=logits_nK.device)].tolist())
    turns = [rows[turn] for turn in range(-(-need // K)) for rows in asked if turn < len(rows)]
    chosen_m = torch.tensor(list(dict.fromkeys(turns)), dtype=torch.int64, device=logits_nK.device)
    order_n = ranking.order(scores)
    fill_n = order_n[~torch.isin(order_n, chosen_m)]
    return scores.positions_n[torch.cat([chosen_m, fill_n])[:need]]
