"""BatchBALD: query samples whose classes together reveal most about which of the dropout passes is right.

Needs ``mc_logits``, as ``bald``. Scoring costs N T K; the choice works on the m = 2,000 samples that ``bald`` ranks
highest, B C T K for each that is evaluated, C = 2,000 joint outcomes of the picks. Exact under sharding: a shard sends
its m best. It runs on the CPU.

Choose it in place of ``bald`` for batches of up to some tens: it does not ask for copies of one sample. Joint outcomes
are exact while there are at most C of them, which three picks of ten classes use up, and drawn at random afterwards; in
large batches that randomness decides most.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.probabilities import NoState
from alfamix_core.acquisition.strategies import bald
from alfamix_core.acquisition.tunables.batchbald import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"mc_logits"})
COLUMN_TUNABLES = frozenset({"passes"})
NEEDS_LABELS = False
USES_HEAD = False

_STALE_ROWS = 16
_LARGEST = 2**22
"""Conditional probabilities that are in memory at a time."""


@dataclass(frozen=True)
class State:
    """The tunables, and the seed of the drawn outcomes.

    Attributes:
        tunables: Number of candidates and of outcomes.
        seed: Seed of the outcomes that are drawn.
    """

    tunables: Tunables
    seed: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the tunables, and the seed of the outcomes that are drawn; the masks are drawn in ``embed``."""
    return State(tunables, seed)


def score(block: Features, state: State) -> Scores:
    """Score each sample by how much its own passes disagree, as ``bald`` does: its gain as the first pick.

    Args:
        block: n pool samples; only positions and mc_logits (n, T, K), K >= 2, are read.
        state: Result of ``prepare``.

    Returns:
        scores_n >= 0 in nats, with the row ``mc_logits``.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.mc_logits_nTK is not None
    scores = bald.score(block, NoState())
    return Scores(scores.positions_n, scores.scores_n, {"mc_logits": block.mc_logits_nTK})


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the max(candidates, reach) best rows, in position order."""
    return ranking.keep(scores, state, max(state.tunables.candidates, reach))


class Outcomes:
    """Joint classes of the picks, with their probabilities and those of the passes given each of them.

    Attributes:
        chances_C: (C,) float64, adding up to 1.
        beliefs_CT: (C, T) float64, the probability of each pass given the outcome; rows add up to 1.
    """

    def __init__(self, passes: int, largest: int, generator: torch.Generator):
        """Begin with one outcome of no pick, which reveals nothing about the passes."""
        self.chances_C = torch.ones(1, dtype=torch.float64)
        self.beliefs_CT = torch.full((1, passes), 1 / passes, dtype=torch.float64)
        self._largest, self._generator, self._drawn = largest, generator, False

    def gains(self, probs_aTK: Tensor) -> Tensor:
        """Return the information of each sample's class about the pass beyond the picks' classes.

        Args:
            probs_aTK: (a, T, K) float64.

        Returns:
            (a,) float64 >= 0, nats: the entropy of the class given the picks', less that given the pass.
        """
        given_pass_a = torch.special.entr(probs_aTK).sum(dim=2).mean(dim=1)
        size = max(1, _LARGEST // (len(self.chances_C) * probs_aTK.shape[2]))
        given_picks_a = torch.cat(
            [
                torch.special.entr(self.beliefs_CT @ part_bTK).sum(dim=2) @ self.chances_C
                for part_bTK in torch.split(probs_aTK, size)
            ]
        )
        return torch.clamp(given_picks_a - given_pass_a, min=0)

    def add(self, probs_TK: Tensor) -> None:
        """Add a pick: every outcome with every class, or a sample of them drawn by their probabilities."""
        T, K = probs_TK.shape
        if not self._drawn and len(self.chances_C) * K <= self._largest:
            joint_CTK = self.beliefs_CT[:, :, None] * probs_TK
            chances_CK = self.chances_C[:, None] * joint_CTK.sum(dim=1)
            beliefs_CT = joint_CTK.transpose(1, 2).reshape(-1, T)
            possible_C = chances_CK.reshape(-1) > 0
            self.chances_C, beliefs_CT = chances_CK.reshape(-1)[possible_C], beliefs_CT[possible_C]
        else:
            if not self._drawn:
                rows_M = self._draw(self.chances_C.expand(self._largest, -1))
                self.beliefs_CT, self._drawn = self.beliefs_CT[rows_M], True
                self.chances_C = torch.full((self._largest,), 1 / self._largest, dtype=torch.float64)
            classes_M = self._draw(self.beliefs_CT @ probs_TK)
            beliefs_CT = self.beliefs_CT * probs_TK.T[classes_M]
        self.beliefs_CT = beliefs_CT / beliefs_CT.sum(dim=1, keepdim=True)

    def _draw(self, chances_MX: Tensor) -> Tensor:
        """Return one index of each row, with probabilities in proportion to its values: (M,)."""
        sums_MX = chances_MX.cumsum(dim=1)
        numbers_M1 = torch.rand(len(chances_MX), 1, dtype=torch.float64, generator=self._generator)
        return (sums_MX <= numbers_M1 * sums_MX[:, -1:]).sum(dim=1).clamp(max=chances_MX.shape[1] - 1)


def jointly(
    probs_mTK: Tensor, outcomes: Outcomes, count: int, accept: Callable[[int], bool] = lambda row: True
) -> list[int]:
    """Pick rows one by one, each time the one whose class reveals most beyond the picks' classes.

    The gain of a row only falls as picks are added, so an earlier gain is an upper bound, and only rows that lead by
    their bound are computed.

    Args:
        probs_mTK: (m, T, K) float64 on the CPU.
        outcomes: Joint outcomes of the picks so far; the new picks are added.
        count: Number of picks, <= m.
        accept: Answer for each row that is to be picked, asked once; a row that is not accepted adds no outcome.

    Returns:
        Rows in the order of the picks; ties to the lowest.

    Source:
        Kirsch, van Amersfoort, Gal, "BatchBALD: efficient and diverse batch acquisition for deep Bayesian active
        learning", NeurIPS 2019, algorithm 1 and section 3.3.
    """
    bounds_m = outcomes.gains(probs_mTK)
    picks: list[int] = []
    fresh_m = torch.ones(len(probs_mTK), dtype=torch.bool)
    while len(picks) < count:
        best = int(bounds_m.argmax())
        if bounds_m[best] == -torch.inf:
            break
        if not fresh_m[best]:
            stale_m = bounds_m.masked_fill(fresh_m, -torch.inf)
            rows_a = stale_m.topk(min(_STALE_ROWS, len(stale_m))).indices
            rows_a = rows_a[~fresh_m[rows_a]]
            bounds_m[rows_a] = torch.minimum(bounds_m[rows_a], outcomes.gains(probs_mTK[rows_a]))
            fresh_m[rows_a] = True
            continue
        bounds_m[best], fresh_m[best] = -torch.inf, True
        if accept(best):
            picks.append(best)
            outcomes.add(probs_mTK[best])
            fresh_m = bounds_m <= 0
    return picks


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick, one by one, the candidate whose class reveals most about the passes beyond the picks' classes.

    Args:
        scores: n rows, positions ascending, with ``mc_logits``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the picks. Where all candidates were offered, the choice
            continues on the next ones.
        generator: Not read: the drawn outcomes belong to the seed of ``prepare``.
    """
    outcomes = None
    for kept in subset.in_turns(scores, state, batch, keep):
        logits_mTK = kept.column("mc_logits").to("cpu", torch.float64)
        if outcomes is None:
            random = noise.generator(noise.fold(state.seed, noise.JOINT_DRAW))
            outcomes = Outcomes(logits_mTK.shape[1], state.tunables.outcomes, random)
        count = min(batch.missing, len(kept))
        jointly(logits_mTK.softmax(dim=2), outcomes, count, batch.by_row(kept.positions_n))
