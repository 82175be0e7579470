"""Critical caps where every anchor moves a sample along a ray of its own.

The closed form moves a sample along one ray for all anchors, so the farthest decides (``flips``). Two variants do not:
the maximiser under a bound of the ratios themselves, and the released code, which drops coordinates. Along each ray a
linear head's logits are lines, so each anchor has a critical cap, and the smallest counts. Costs C times as much.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from alfamix_core.acquisition import mixing
from alfamix_core.acquisition.blocks import map_rows, products
from alfamix_core.acquisition.flips import meetings, pulls
from alfamix_core.acquisition.types import Head, LinearHead

Ray = Literal["bounded", "released"]


def steps(rows_nD: Tensor, anchor_D: Tensor, direction_nD: Tensor, ray: Ray) -> Tensor:
    """Return the step towards one anchor for ratios bounded by 1.

    With d = z* - z and the unit direction g of steepest growth, the maximiser of the first-order growth α ⊙ d · g under
    ‖α‖ <= 1 is α = d ⊙ g / ‖d ⊙ g‖. The released code computes α = ‖d‖ g / (d + 1e-8), so where a coordinate of d is
    0 it takes no step.

    Args:
        rows_nD: (n, D).
        anchor_D: (D,).
        direction_nD: (n, D) of length 1, or 0.
        ray: "bounded" for that maximiser, "released" for the closed form without the coordinates in which d is 0.

    Returns:
        (n, D): α ⊙ d, 0 where the direction is 0 or leads nowhere.

    Source:
        Parvaneh et al., CVPR 2022, equation 4 and, for "released", the code that accompanies it.
    """
    towards_nD = anchor_D - rows_nD
    if ray == "released":
        distances_n1: Tensor = towards_nD.norm(dim=1, keepdim=True)
        return distances_n1 * torch.where(towards_nD == 0, 0.0, direction_nD)
    pull_nD = towards_nD * direction_nD
    lengths_n1 = pull_nD.norm(dim=1, keepdim=True)
    return torch.where(lengths_n1 > 0, towards_nD * pull_nD / lengths_n1, 0.0)


def critical_caps(embeddings_nD: Tensor, anchors_CD: Tensor, head: Head, caps: Sequence[float], ray: Ray) -> Tensor:
    """Return each sample's critical cap, the smallest over the anchors.

    Args:
        embeddings_nD: (n, D) float16, float32 or float64.
        anchors_CD: (C, D).
        head: Linear head, or any differentiable one.
        caps: Schedule, ascending; read for a head that is not linear.
        ray: Way in which a sample moves towards an anchor.

    Returns:
        (n,) float64. A linear head: exact in float64, inf where nothing flips. Any other: the first cap of the schedule
        at which a step flips.
    """
    if isinstance(head, LinearHead):
        return map_rows(lambda rows_nD: _linear_caps(rows_nD.to(torch.float64), anchors_CD, head, ray), embeddings_nD)
    rows_nD = embeddings_nD.to(torch.promote_types(embeddings_nD.dtype, torch.float32))
    direction_nD = map_rows(lambda block_nD: mixing.direction(block_nD, head)[1], rows_nD)

    def towards(anchor_D: Tensor) -> Callable[[float, Tensor], Tensor]:
        step_nD = steps(rows_nD, anchor_D, direction_nD, ray) / math.sqrt(rows_nD.shape[1])
        return lambda cap, left_m: cap * step_nD[left_m]

    return mixing.first_caps(rows_nD, head, caps, map(towards, anchors_CD.to(rows_nD.dtype)))


def _linear_caps(rows_nD: Tensor, anchors_CD: Tensor, head: LinearHead, ray: Ray) -> Tensor:
    weight_KD = head.weight_KD.to(torch.float64)
    logits_nK = products(rows_nD, weight_KD.T) + head.bias_K.to(torch.float64)
    predicted_n1 = logits_nK.argmax(dim=1, keepdim=True)
    # what all classes share moves all logits by the same amount
    weight_KD = weight_KD - weight_KD.mean(dim=0)
    same_KK = torch.cdist(weight_KD, weight_KD, compute_mode="donot_use_mm_for_euclid_dist") == 0
    slope_nD = products(pulls(logits_nK, predicted_n1, same_KK), weight_KD)
    lengths_n1 = slope_nD.norm(dim=1, keepdim=True)
    direction_nD = torch.where(lengths_n1 > 0, slope_nD / lengths_n1, 0.0)
    caps_n = rows_nD.new_full((len(rows_nD),), torch.inf)
    for anchor_D in anchors_CD.to(torch.float64):
        rise_nK = products(steps(rows_nD, anchor_D, direction_nD, ray), weight_KD.T.contiguous())
        meeting_n = meetings(logits_nK, rise_nK, predicted_n1, same_KK)
        caps_n = torch.minimum(caps_n, math.sqrt(rows_nD.shape[1]) * meeting_n)
    return caps_n
