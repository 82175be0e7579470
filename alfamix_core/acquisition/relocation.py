"""A way out of Lloyd's local minima: a centre that is hardly needed moves into a cluster that holds two groups."""

import torch
from torch import Tensor


def relocations(
    rows_nD: Tensor,
    count: int,
    nearest_n2: Tensor,
    squares_n2: Tensor,
    gumbel_n: Tensor,
) -> list[tuple[int, int]]:
    """Pair centres that can be spared with rows at which they would be worth more.

    Without its centre, a cluster's rows go to their second nearest centre; the rise of the inertia is the worth of the
    centre. In every cluster a new centre could start at one of its rows, drawn in proportion to the squared distance;
    the immediate fall of the inertia is the least that it gains. In a cluster of one round group the gain is next to
    nothing; in a cluster of two groups it is nearly the whole inertia. The least needed centres move to the largest
    gains, as long as more is gained than lost. No cluster takes part twice, and neither does one that takes over
    another's rows.

    Args:
        rows_nD: (n, D) float32.
        count: Number of centres B >= 2.
        nearest_n2: (n, 2) int64, the two nearest centres of each row.
        squares_n2: (n, 2) float32 >= 0, squared distances to them.
        gumbel_n: (n,) standard Gumbel numbers, which draw a row in each cluster.

    Returns:
        (centre, row) for each move.

    Source:
        Ours. The value of a centre and moves in batches follow Fritzke, "The k-means-u* algorithm", 2017, and
        "Breathing k-means", 2020.
    """
    owner_n, second_n = nearest_n2.unbind(dim=1)
    worth_B = squares_n2.new_zeros(count).index_add_(0, owner_n, squares_n2[:, 1] - squares_n2[:, 0])
    drawn_B = _drawn(owner_n, squares_n2[:, 0].log() + gumbel_n, count)
    gain_B = squares_n2.new_zeros(count)
    for index_m in torch.split(torch.arange(len(rows_nD), device=rows_nD.device), 8192):
        new_mD = rows_nD[drawn_B[owner_n[index_m]]]
        saved_m = squares_n2[index_m, 0] - (rows_nD[index_m] - new_mD).square().sum(dim=1)
        gain_B.index_add_(0, owner_n[index_m], saved_m.clamp(min=0))
    heir = _heirs(owner_n, second_n, count).tolist()
    worth, gain, drawn = worth_B.tolist(), gain_B.tolist(), drawn_B.tolist()
    targets = iter(gain_B.sort(descending=True, stable=True).indices.tolist())
    target = next(targets)
    busy: set[int] = set()
    moves: dict[int, int] = {}
    for centre in worth_B.sort(stable=True).indices.tolist():
        while target in busy:
            target = next(targets, -1)
        if target < 0 or gain[target] <= worth[centre]:
            break
        if centre in busy or heir[centre] in moves or target in (centre, heir[centre]):
            continue
        moves[centre] = drawn[target]
        busy |= {centre, target, heir[centre]}
    return list(moves.items())


def _drawn(owner_n: Tensor, chances_n: Tensor, count: int) -> Tensor:
    """Return the row with the largest number in each cluster, ties to the last; 0 for an empty one: (B,) int64."""
    order_n = chances_n.sort(stable=True).indices
    order_n = order_n[owner_n[order_n].sort(stable=True).indices]
    ends_B = owner_n.bincount(minlength=count).cumsum(dim=0) - 1
    return order_n[ends_B.clamp(min=0)]


def _heirs(owner_n: Tensor, second_n: Tensor, count: int) -> Tensor:
    """Return the cluster that is second nearest to most rows of each cluster, itself for an empty one: (B,) int64."""
    pairs_p, sizes_p = torch.unique(owner_n * count + second_n, return_counts=True)
    order_p = sizes_p.sort(stable=True).indices
    order_p = order_p[(pairs_p[order_p] // count).sort(stable=True).indices]
    heirs_B = torch.arange(count, device=owner_n.device)
    # assignment to repeated indices has no defined order, so only the last of each cluster is written
    owners_p = pairs_p[order_p] // count
    last_p = torch.ones_like(owners_p, dtype=torch.bool)
    last_p[:-1] = owners_p[1:] != owners_p[:-1]
    heirs_B[owners_p[last_p]] = pairs_p[order_p][last_p] % count
    return heirs_B
