"""ALFA-Mix: query samples whose prediction changes when a little of a labelled class is mixed in, spread by k-means."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alfamix_core.acquisition import mixing, noise, ranking
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.clustering import Init, kmeans, representatives
from alfamix_core.acquisition.flips import LinearFlips, critical_caps, first_flipping_caps, linear_flips
from alfamix_core.acquisition.types import Features, Head, Labelled, LinearHead, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = True
USES_HEAD = True


@dataclass(frozen=True)
class State:
    """What every shard needs.

    Attributes:
        caps: the schedule, ascending.
        flips: for a linear head, else None.
        head: the head.
        anchors_CD: (C, D) for a head that is not linear, with the overall mean if some class has no label.
        farthest_only: for such a head, whether the farthest anchor alone is tried.
        selection: how queries are chosen among more candidates than are needed.
        max_candidates: at most so many candidates, those that flip first.
        init: start of the k-means.
    """

    caps: tuple[float, ...]
    flips: LinearFlips | None
    head: Head
    anchors_CD: Tensor
    farthest_only: bool
    selection: str
    max_candidates: int
    init: Init


def prepare(
    labelled: Labelled,
    head: Head,
    *,
    seed: int,
    grow: bool = True,
    selection: Literal["kmeans", "norm", "uniform"] = "kmeans",
    max_candidates: int = 250_000,
    anchors: Literal["all", "farthest"] = "all",
    init: Init = "random",
) -> State:
    """Compute the anchors and what the head makes of them.

    Args:
        labelled: L >= 1 labelled samples.
        head: K >= 2 classes.
        seed: not read: nothing is random before ``select``.
        grow: whether the cap grows from 0.2 by steps of 0.2 to 1 until there are more candidates than queries; else
            it stays at 0.2, as in the paper.
        selection: "kmeans" is the method; "norm" takes those that flip first, "uniform" any, as in its ablation.
        max_candidates: bounds what a shard sends and k-means clusters, >= 1. Never fewer than the queries plus one.
        anchors: for a head that is not linear: "farthest" is C times faster and nearly always the same.
        init: start of the k-means; "k-means++" costs more time for up to 3 % less inertia.

    Returns:
        The state.

    Raises:
        InputError: fewer than two classes, or ``max_candidates`` below 1.

    Source:
        Parvaneh et al., "Active learning by feature mixing", CVPR 2022; the growing cap is the released code's.
    """
    if max_candidates < 1:
        raise InputError(f'strategy "alfamix": max_candidates must be at least 1, not {max_candidates}')
    means = class_means(labelled)
    with torch.no_grad():
        classes = head(labelled.embeddings_LD[:1].to(torch.float32)).shape[1]
    if classes < 2:
        raise InputError(f"two classes are needed to compare, the head has {classes}")
    everywhere = len(means.classes_C) == classes
    return State(
        caps=mixing.CAPS if grow else mixing.CAPS[:1],
        flips=linear_flips(labelled, head) if isinstance(head, LinearHead) else None,
        head=head,
        anchors_CD=means.means_CD if everywhere else torch.cat([means.means_CD, means.overall_D[None]]),
        farthest_only=anchors == "farthest",
        selection=selection,
        max_candidates=max_candidates,
        init=init,
    )


def score(block: Features, state: State) -> Scores:
    """Score each sample by how little mixing changes its prediction.

    Args:
        block: n pool samples; only positions and embeddings (n, D) are read.
        state: from ``prepare``.

    Returns:
        scores_n = -a*, a* the critical cap: in [-inf, 0], 0 is a tie of two classes, -inf cannot flip. The row
        ``embeddings`` is what k-means needs.
    """
    assert block.embeddings_nD is not None
    if state.flips is not None:
        caps_n = critical_caps(block.embeddings_nD, state.flips)
    else:
        caps_n = first_flipping_caps(
            block.embeddings_nD, state.anchors_CD, state.head, state.caps, farthest_only=state.farthest_only
        )
    return Scores(block.positions_n, (0.0 - caps_n).to(torch.float32), {"embeddings": block.embeddings_nD})


def _reached(scores: Scores, state: State, need: int) -> tuple[float, Tensor]:
    """Return the first cap with more than ``need`` candidates, else the last, and which rows are candidates there.

    A critical cap of a head that is not linear is itself a cap of the schedule: the first at which it flips, where
    it is a candidate already. That of a linear head must lie below the cap.
    """
    caps_n = -scores.scores_n.to(torch.float64)
    for cap in state.caps:
        candidates_n = caps_n < cap if state.flips is not None else caps_n <= cap * (1 + 1e-6)
        if int(candidates_n.sum()) > need:
            break
    return cap, candidates_n


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the candidates of the first cap with more than ``reach`` of them, and the ``reach`` best rows.

    The cap of the whole pool is never larger than that of a shard, so nothing that it needs is missing.

    Args:
        scores: n rows of one shard or of several merged.
        state: from ``prepare``.
        reach: the greatest number of queries that can still be asked for.

    Returns:
        At most max(max_candidates, reach + 1) rows, in position order.
    """
    _, candidates_n = _reached(scores, state, reach)
    return ranking.best(scores, min(max(int(candidates_n.sum()), reach), max(state.max_candidates, reach + 1)))


def select(scores: Scores, state: State, need: int, generator: torch.Generator) -> Tensor:
    """Choose among the candidates by k-means; fill a short batch with the samples that flip next.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: from ``prepare``.
        need: number of queries.
        generator: gives the seed of the k-means.

    Returns:
        (min(need, n),) positions: the samples nearest to the cluster centres by score, then the fill by score; ties
        by position.
    """
    seed = noise.draw_seed(generator)
    kept = keep(scores, state, need)
    if len(kept) <= need or not need or state.selection == "norm":
        return ranking.select(kept, state, need, generator)
    if state.selection == "uniform":
        numbers_n = noise.uniform(noise.fold(seed, noise.UNIFORM_CHOICE), kept.positions_n)
        chosen_m = numbers_n.sort(stable=True).indices[:need]
    else:
        rows_nD = torch.nn.functional.normalize(kept.rows["embeddings"].to(torch.float32), dim=1)
        chosen_m = representatives(kmeans(rows_nD, kept.positions_n, need, seed, state.init))
    order_n = ranking.order(kept)
    chosen_n = torch.zeros(len(kept), dtype=torch.bool, device=order_n.device)
    chosen_n[chosen_m] = True
    first_n = chosen_n[order_n]
    return kept.positions_n[torch.cat([order_n[first_n], order_n[~first_n]])[:need]]


def summary(scores: Scores, state: State, need: int) -> dict[str, float | int]:
    """Return ``cap``, the cap that the schedule reached, and ``candidates``, the number of samples that flip there.

    Args:
        scores: n rows.
        state: from ``prepare``.
        need: number of queries.

    Returns:
        The two numbers; ``candidates`` is at most what ``keep`` keeps.
    """
    cap, candidates_n = _reached(scores, state, need)
    return {"cap": cap, "candidates": min(int(candidates_n.sum()), max(state.max_candidates, need + 1))}
