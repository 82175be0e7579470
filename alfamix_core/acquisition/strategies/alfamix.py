"""ALFA-Mix: query samples whose prediction changes when a little of a labelled class is mixed in, spread by k-means.

Needs embeddings, of pool and labelled samples, the labels and the head. Scoring costs N (K + C) D + N K² for a linear
head, all caps and anchors together; the choice is a k-means of the candidates into B clusters. Exact under sharding: a
shard sends its own candidates and its best, of which the pool's candidates are always a part. With ratios that are
drawn or learned there is no shortcut: up to C passes through the head for each of 32 caps, or nine times as many.

Choose it with its defaults for small to medium budgets on any encoder: it finds samples that are uncertain in
directions that lead to known classes, and spreads the queries over them. The other values of ``alpha`` and
``selection`` are the paper's variants and ablations, for comparisons.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import anchor_rays, drawn_mixing, noise, ranking
from alfamix_core.acquisition.anchors import class_means, medoids
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.flips import (
    LinearFlips,
    critical_caps,
    first_flipping_caps,
    flip_divergences,
    grid_divergences,
    linear_flips,
)
from alfamix_core.acquisition.spread import offer_clusters, offer_in_rounds
from alfamix_core.acquisition.tunable_types import Effort
from alfamix_core.acquisition.tunables.alfamix import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, LinearHead, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = True
USES_HEAD = True


@dataclass(frozen=True)
class State:
    """The anchors, the head and the tunables, which every shard needs.

    Attributes:
        caps: Schedule, ascending.
        flips: Prepared caps of the closed form with a linear head; None for all other variants.
        head: Head of the model.
        anchors_CD: (C, D), with the overall mean if some class has no label; if ratios are drawn, (K, D) with the
            overall mean for each such class.
        tunables: Tunables of the mixing and of the choice.
        fill: Samples that fill a batch for which there are too few candidates.
        clustering: Effort of the k-means.
        seed: Seed of drawn ratios and a random fill.
    """

    caps: tuple[float, ...]
    flips: LinearFlips | None
    head: Head
    anchors_CD: Tensor
    tunables: Tunables
    fill: str
    clustering: Effort
    seed: int

    @property
    def continuous(self) -> bool:
        """Whether critical caps are real numbers, not caps of the schedule."""
        return self.flips is not None or (self.tunables.ray is not None and isinstance(self.head, LinearHead))


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Compute the anchors and, for a linear head, the matrices of the closed form.

    Args:
        labelled: L >= 1 labelled samples.
        head: K >= 2 classes.
        tunables: Tunables of the mixing and of the choice.
        seed: Seed of ratios that are drawn, and of a random fill.

    Returns:
        The state.

    Raises:
        InputError: Fewer than two classes.

    Source:
        Parvaneh et al., "Active learning by feature mixing", CVPR 2022; the growing cap is the released code's.
    """
    caps = tunables.schedule()
    if tunables.epsilon is not None:
        # critical caps are in units of 1/√D
        caps = tuple(cap * tunables.epsilon * math.sqrt(labelled.embeddings_LD.shape[1]) for cap in caps)
    with torch.no_grad():
        classes = head(labelled.embeddings_LD[:1].to(torch.float32)).shape[1]
    if classes < 2:
        raise InputError(f"two classes are needed to compare, the head has {classes}")
    anchors_CD = _anchors(labelled, classes, tunables.anchors, drawn=tunables.drawn)
    flips = None
    if isinstance(head, LinearHead) and tunables.alpha == "closed_form" and tunables.ray is None:
        # the mean of all lies in the hull of the others: it is never the farthest, but may be the nearest
        among_CD = None if tunables.anchors in ("all", "farthest") else anchors_CD
        flips = linear_flips(labelled, head, anchors_CD=among_CD, nearest=tunables.anchors == "nearest")
    released = tunables.compatibility == "released"
    return State(
        caps=caps if tunables.grow else caps[:1],
        flips=flips,
        head=head,
        anchors_CD=anchors_CD,
        tunables=tunables,
        fill="random" if released else tunables.fill,
        clustering="ten_starts" if released else tunables.clustering,
        seed=seed,
    )


def _anchors(labelled: Labelled, classes: int, anchors: str, *, drawn: bool) -> Tensor:
    """Return the anchors with which samples are mixed, (C, D) float64."""
    if anchors == "samples":
        return labelled.embeddings_LD.to(torch.float64)
    if anchors == "medoids":
        return medoids(labelled)
    means = class_means(labelled)
    return means.means_CD if anchors == "nearest" and not drawn else means.for_mixing(classes, per_class=drawn)


def score(block: Features, state: State) -> Scores:
    """Score each sample by how little mixing changes its prediction.

    Args:
        block: n pool samples; only positions and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n = -a*, a* the critical cap: in [-inf, 0], 0 is a tie of two classes, -inf cannot flip. The row
        ``embeddings`` is what k-means needs; ``norms`` and ``divergences`` are there where the selection needs them.
    """
    assert block.embeddings_nD is not None
    embeddings_nD, anchors_CD, head = block.embeddings_nD, state.anchors_CD, state.head
    tunables = state.tunables
    rows = {"embeddings": embeddings_nD}
    if tunables.drawn:
        drawn = drawn_mixing.drawn_flips(
            embeddings_nD,
            block.positions_n,
            anchors_CD,
            head,
            caps=state.caps,
            seed=state.seed,
            learned=tunables.alpha == "learned",
            learning=drawn_mixing.Learning(
                tunables.rate, tunables.iterations, tunables.loss_weight, tunables.norm_weight
            ),
        )
        caps_n = drawn.caps_n
        if tunables.selection == "norm":
            rows["norms"] = drawn.norms_n
        if tunables.selection == "symmetric_kl":
            rows["divergences"] = drawn.divergences_n
    elif tunables.ray is not None:
        caps_n = anchor_rays.critical_caps(embeddings_nD, anchors_CD, head, state.caps, tunables.ray)
    elif state.flips is not None:
        caps_n = critical_caps(embeddings_nD, state.flips)
        if tunables.selection == "symmetric_kl":
            rows["divergences"] = flip_divergences(embeddings_nD, state.flips, state.caps)
    else:
        caps_n = first_flipping_caps(
            embeddings_nD,
            anchors_CD,
            head,
            state.caps,
            farthest_only=tunables.anchors == "farthest",
            nearest_only=tunables.anchors == "nearest",
        )
        if tunables.selection == "symmetric_kl":
            rows["divergences"] = grid_divergences(embeddings_nD, anchors_CD, head, caps_n)
    return Scores(block.positions_n, (0.0 - caps_n).to(torch.float32), rows)


@dataclass(frozen=True)
class _Reached:
    """The cap at which the schedule stops, and its candidates.

    Attributes:
        cap: First cap with more candidates than are needed, copies counted once; otherwise the last.
        candidates_n: (n,) bool.
        repeats_n: (n,) bool: which rows are copies of earlier ones.
        enough: Whether there are more than are needed.
    """

    cap: float
    candidates_n: Tensor
    repeats_n: Tensor
    enough: bool


def _reached(scores: Scores, state: State, need: int) -> _Reached:
    """Return the cap at which the schedule stops, and its candidates.

    A critical cap of a head that is not linear is itself a cap of the schedule: the first at which it flips, where
    it is a candidate already. That of a linear head must lie below the cap.
    """
    caps_n, repeats_n = -scores.scores_n.to(torch.float64), ranking.repeats(scores)
    for cap in state.caps:
        candidates_n = caps_n < cap if state.continuous else caps_n <= cap * (1 + 1e-6)
        enough = int((candidates_n & ~repeats_n).sum()) > need
        if enough:
            break
    return _Reached(cap, candidates_n, repeats_n, enough)


def _order(scores: Scores, state: State, reached: _Reached) -> Tensor:
    """Return the indices of the rows: by score, or with a random fill the candidates by score and then any.

    Copies of other samples come last, so that filling the batch queries something new.
    """
    order_n, repeats_n = ranking.order(scores), reached.repeats_n
    if state.fill == "random":
        numbers_n = noise.uniform(noise.fold(state.seed, noise.RANDOM_FILL), scores.positions_n)
        by_number_n = numbers_n.sort(stable=True).indices
        candidates_n = reached.candidates_n
        order_n = torch.cat([order_n[candidates_n[order_n]], by_number_n[~candidates_n[by_number_n]]])
        repeats_n = repeats_n & candidates_n
    last_n = repeats_n[order_n]
    return torch.cat([order_n[~last_n], order_n[last_n]])


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the candidates of the first cap with more than ``reach`` of them, and the ``reach`` rows asked first.

    The cap of the whole pool is never larger than that of a shard, so nothing that it needs is missing. A sample that
    is no copy in the pool is none in its shard, so it comes no later there.

    Args:
        scores: n rows of one shard or of several merged.
        state: Result of ``prepare``.
        reach: Largest number of queries that can still be asked for.

    Returns:
        At most max(max_candidates, reach + 1) candidates, in position order with the others.
    """
    reached = _reached(scores, state, reach)
    first_n = ranking.order(scores)
    first_n = first_n[reached.candidates_n[first_n]][: max(state.tunables.max_candidates, reach + 1)]
    kept_n = torch.zeros(len(scores), dtype=torch.bool, device=first_n.device)
    kept_n[torch.cat([first_n, _order(scores, state, reached)[:reach]])] = True
    kept_m = kept_n.nonzero()[:, 0]
    return scores if len(kept_m) == len(scores) else scores.take(kept_m)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Choose among the candidates, by k-means by default; fill a short batch as the state says.

    Args:
        scores: n rows, positions ascending, with the rows of ``score``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries: the chosen candidates by score (for "norm" and "symmetric_kl" by that
            measure), then the fill; ties by position. Where candidates are refused, the schedule, and the choice among
            its candidates, is that of the pool without them.
        generator: Source of the seed of the k-means, and of a uniform choice.
    """
    seed = noise.draw_seed(generator)
    offer_in_rounds(batch, scores, lambda left: _offer_candidates(left, state, batch, seed))
    left = scores.take(batch.open(scores.positions_n).nonzero()[:, 0]) if batch.refused else scores
    if batch.missing:
        batch.offer_all(left.positions_n[_order(left, state, _reached(left, state, batch.need))])


def _offer_candidates(scores: Scores, state: State, batch: Batch, seed: int) -> None:
    """Offer a choice among the candidates, if there are more of them than queries."""
    kept = keep(scores, state, batch.need)
    if not _reached(kept, state, batch.need).enough:
        return
    positions_n = kept.positions_n
    if state.tunables.selection == "norm":
        norms_n = kept.column("norms") if "norms" in kept.rows else -kept.scores_n
        batch.offer_all(positions_n[norms_n.sort(stable=True).indices])
    elif state.tunables.selection == "symmetric_kl":
        batch.offer_all(positions_n[kept.column("divergences").sort(descending=True, stable=True).indices])
    elif state.tunables.selection == "uniform":
        numbers_n = noise.uniform(noise.fold(seed, noise.UNIFORM_CHOICE), positions_n)
        chosen_m = numbers_n.sort(stable=True).indices[: batch.need]
        order_n = ranking.order(kept)
        batch.offer_all(positions_n[order_n[torch.isin(order_n, chosen_m)]])
    else:
        offer_clusters(batch, kept, ranking.order(kept), seed, state.clustering)


def summary(scores: Scores, state: State, need: int) -> dict[str, float | int]:
    """Return ``cap``, the cap that the schedule reached, and ``candidates``, the number of samples that flip there.

    Args:
        scores: n rows.
        state: Result of ``prepare``.
        need: Number of queries.

    Returns:
        The two numbers; ``candidates`` is at most what ``keep`` keeps.
    """
    reached = _reached(scores, state, need)
    candidates = min(int(reached.candidates_n.sum()), max(state.tunables.max_candidates, need + 1))
    return {"cap": reached.cap, "candidates": candidates}
