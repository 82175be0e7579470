"""Power margin: margin sampling with a random part, so that a large batch does not repeat the same question.

Needs logits alone. Costs N K and one hash per sample; a shard sends its B best rows, which is exact.

Choose it where a batch is large compared with the pool's hard regions and only logits are available: it spreads the
batch at the cost of a ranking. With B = 1 or few near-duplicates, ``margin`` is sharper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.probabilities import score_logits
from alfamix_core.acquisition.tunables.power_margin import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"logits"})
NEEDS_LABELS = False
USES_HEAD = False

keep = ranking.keep
select = ranking.select


@dataclass(frozen=True)
class State:
    """The sharpness of the draw, and the key of its noise.

    Attributes:
        beta: Exponent of the sampling weight.
        noise_key: Key of the Gumbel numbers.
    """

    beta: float
    noise_key: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the exponent and the key of the noise; labelled samples and head are not read."""
    return State(tunables.beta, noise.fold(seed, noise.POWER_DRAW))


def log_margins(log_probs_nK: Tensor) -> Tensor:
    """Return ln (1 - (p_(1) - p_(2))), finite however confident the prediction.

    Args:
        log_probs_nK: (n, K) ln p, float64, K >= 2.

    Returns:
        (n,) <= 0; 0 is a tie of two classes.
    """
    others_nK = log_probs_nK.scatter(1, log_probs_nK.argmax(dim=1, keepdim=True), -torch.inf)
    return torch.logaddexp(others_nK.amax(dim=1), others_nK.logsumexp(dim=1))


def score(block: Features, state: State) -> Scores:
    """Score each sample so that the B best are B draws without replacement, each with weight (1 - margin)^beta.

    Adding a standard Gumbel number to the logarithm of the weights and ranking is that draw; it needs no sum over
    the pool.

    Args:
        block: n pool samples; only positions and logits (n, K), K >= 2, are read.
        state: Result of ``prepare``.

    Returns:
        scores_n = beta ln (1 - margin) + Gumbel number of seed and position.

    Raises:
        InputError: There are fewer than two classes.

    Source:
        Kirsch et al., "Stochastic batch acquisition: a simple baseline for deep active learning", TMLR 2023,
        section 4, power acquisition, with the margin's 1 - (p_(1) - p_(2)) as its score.
    """
    logs = score_logits(block, log_margins)
    noise_n = noise.gumbel(state.noise_key, block.positions_n)
    return Scores(block.positions_n, (state.beta * logs.scores_n.to(torch.float64) + noise_n).to(torch.float32))
