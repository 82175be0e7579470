"""Critical caps: how far the schedule must open before mixing changes a sample's prediction.

Every anchor moves a sample along the same ray, so with a linear head the logits are lines, the predicted class loses
the maximum once and permanently, and the farthest anchor decides. One pass gives every cap, the same as the paper's
loop over classes and caps; docs/algorithm.md has the proof.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import mixing
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.blocks import map_rows, products
from alfamix_core.acquisition.points import Distributions, coarse_mean
from alfamix_core.acquisition.types import Head, Labelled, LinearHead

_EQUAL = 1e-13
"""Squared lengths below this share of their terms are rounding of 0 in float64."""


@dataclass(frozen=True)
class LinearFlips:
    """The anchors and a linear head in the form that critical caps need: K² + (K + C) D numbers.

    Attributes:
        centre_D: (D,) float64, subtracted from every sample before the products; exact in float32.
        kernel_DX: (D, K + C) float64: the K rows of the head's weight, less what they share, then the C
            anchors minus their mean.
        offsets_X: (K + C,) float64, added to the products to undo the centring, bias included.
        mean_D: (D,) float64, the mean anchor minus the centre.
        squares_C: (C,) float64, squared distances of the anchors from their mean.
        gram_KK: (K, K) float64, products of the weight's rows, each minus the mean row.
        same_KK: (K, K) bool, classes with equal weights, which cannot overtake each other; None if there are none.
        smallest: Largest squared gradient that counts as rounding of 0.
        nearest: Whether the nearest anchor decides, not the farthest.
    """

    centre_D: Tensor
    kernel_DX: Tensor
    offsets_X: Tensor
    mean_D: Tensor
    squares_C: Tensor
    gram_KK: Tensor
    same_KK: Tensor | None
    smallest: float
    nearest: bool = False


def linear_flips(
    labelled: Labelled, head: LinearHead, *, anchors_CD: Tensor | None = None, nearest: bool = False
) -> LinearFlips:
    """Prepare the critical caps of a linear head, in float64.

    The mean of all labelled samples, the paper's anchor of a class without labels, lies in the hull of the others:
    it is never the farthest and is left out.

    Args:
        labelled: L >= 1 labelled samples.
        head: K >= 2 classes.
        anchors_CD: (C, D) float64, with which samples are mixed; None for the class means.
        nearest: Whether each sample is mixed with the nearest anchor alone.

    Returns:
        Small matrices, deterministic, independent of the pool.

    Source:
        docs/algorithm.md, "One number per sample"; Parvaneh et al., CVPR 2022, equation 5.
    """
    anchors_CD = class_means(labelled).means_CD if anchors_CD is None else anchors_CD
    weight_KD = head.weight_KD.to(torch.float64)
    mean_D = anchors_CD.mean(dim=0)
    centred_CD = anchors_CD - mean_D
    centre_D = coarse_mean(labelled.embeddings_LD)
    mean_D = mean_D - centre_D
    # what all rows share moves all logits by the same amount
    weight_KD = weight_KD - coarse_mean(weight_KD)
    rows_KD = weight_KD - weight_KD.mean(dim=0)
    gram_KK = rows_KD @ rows_KD.T
    diagonal_K = gram_KK.diagonal()
    sums_KK = diagonal_K[:, None] + diagonal_K
    same_KK = sums_KK - 2 * gram_KK <= _EQUAL * sums_KK
    return LinearFlips(
        centre_D=centre_D,
        kernel_DX=torch.cat([weight_KD, centred_CD]).T.contiguous(),
        offsets_X=torch.cat([weight_KD @ centre_D + head.bias_K.to(torch.float64), -(centred_CD @ mean_D)]),
        mean_D=mean_D,
        squares_C=centred_CD.square().sum(dim=1),
        gram_KK=gram_KK,
        same_KK=same_KK if int(same_KK.sum()) > len(same_KK) else None,
        smallest=_EQUAL * float(diagonal_K.max()),
        nearest=nearest,
    )


def pulls(logits_nK: Tensor, predicted_n1: Tensor, same_KK: Tensor | None) -> Tensor:
    """Return each class's share in the gradient of the other classes' gain over the predicted class.

    r - e_y, not p - e_y = (1 - p_y)(r - e_y): it does not vanish however confident the prediction is.

    Args:
        logits_nK: (n, K) float64.
        predicted_n1: (n, 1) int64, the predicted class y.
        same_KK: (K, K) bool, classes with equal weights; None if no two have them.

    Returns:
        (n, K) q = r - e_y, r the softmax over the classes other than y.
    """
    others_nK = logits_nK.scatter(1, predicted_n1, -torch.inf)
    if same_KK is None:
        return others_nK.softmax(dim=1).scatter_(1, predicted_n1, -1.0)
    # a class with the weights of y adds nothing to the gradient, but takes the digits of those that do
    others_nK.masked_fill_(same_KK[predicted_n1[:, 0]], -torch.inf)
    return others_nK.softmax(dim=1).nan_to_num_(nan=0.0).scatter_(1, predicted_n1, -1.0)


def meetings(logits_nK: Tensor, slope_nK: Tensor, predicted_n1: Tensor, same_KK: Tensor | None) -> Tensor:
    """Return where along a ray another class first reaches the predicted one.

    Args:
        logits_nK: (n, K) float64, logits at the start of the ray.
        slope_nK: (n, K) float64, slopes of the logits along it.
        predicted_n1: (n, 1) int64, the predicted class y.
        same_KK: (K, K) bool, classes with equal weights; None if no two have them.

    Returns:
        (n,) float64 >= 0, in steps of the slope; inf where no class reaches it.
    """
    gap_nK = logits_nK.gather(1, predicted_n1) - logits_nK
    rise_nK = slope_nK - slope_nK.gather(1, predicted_n1)
    if same_KK is not None:
        rise_nK = rise_nK.masked_fill(same_KK[predicted_n1[:, 0]], 0.0)
    return (gap_nK / rise_nK).masked_fill_((rise_nK > 0).logical_not_(), torch.inf).amin(dim=1)


def critical_caps(embeddings_nD: Tensor, flips: LinearFlips) -> Tensor:
    """Return each sample's critical cap: it is a candidate at cap a exactly when its critical cap is below a.

    The two products with the embeddings run in the embeddings' dtype (float32 for float16), in padded blocks; the
    small matrices and quotients in float64.

    Args:
        embeddings_nD: (n, D) float16, float32 or float64, finite.
        flips: Result of ``linear_flips``.

    Returns:
        (n,) float64 >= 0, without unit; +inf where no step flips the prediction; NaN only where a logit
        overflows.

    Source:
        docs/algorithm.md: a* = √D t*/R, t* the distance along the gradient at which the predicted class loses the
        maximum, R the distance to the farthest anchor.
    """
    return map_rows(_block_caps(embeddings_nD.dtype, flips), embeddings_nD)


def flip_divergences(embeddings_nD: Tensor, flips: LinearFlips, caps: Sequence[float]) -> Tensor:
    """Return the change of the prediction at each sample's own first flipping cap, towards the farthest anchor.

    Args:
        embeddings_nD: (n, D), as for ``critical_caps``.
        flips: Result of ``linear_flips``.
        caps: Schedule, ascending.

    Returns:
        (n,) float32: half the symmetric Kullback-Leibler divergence, nats; 0 where no cap of the schedule flips.

    Source:
        Parvaneh et al., CVPR 2022, the ablation "Symmetric-KL"; the logits along the ray are lines, so l' = l + s v/‖g‖
        for a step of length s.
    """
    rays, root = _block_rays(embeddings_nD.dtype, flips), math.sqrt(len(flips.centre_D))
    block_caps = _block_caps(embeddings_nD.dtype, flips)

    def block_divergences(embeddings_nD: Tensor) -> Tensor:
        logits_nK, _, slope_nK, square_n, farthest_n = rays(embeddings_nD)
        critical_n = block_caps(embeddings_nD)
        first_n = torch.full_like(critical_n, torch.inf)
        for cap in reversed(caps):
            first_n = torch.where(critical_n < cap, cap, first_n)
        step_n1 = (first_n / root * farthest_n.sqrt() / square_n.sqrt())[:, None]
        after_nK = torch.where(first_n[:, None] < torch.inf, logits_nK + step_n1 * slope_nK, logits_nK)
        return Distributions(logits_nK).from_each(Distributions(after_nK))

    return map_rows(block_divergences, embeddings_nD).to(torch.float32)


def _block_rays(dtype: torch.dtype, flips: LinearFlips) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function from a block to its rays.

    Its results are logits (n, K), the predicted class (n, 1), slopes along the ray times ‖g‖ (n, K), ‖g‖² (n,) and the
    squared distance to the farthest anchor (n,).
    """
    dtype = torch.promote_types(dtype, torch.float32)
    centre_D, mean_D, kernel_DX = (x.to(dtype) for x in (flips.centre_D, flips.mean_D, flips.kernel_DX))
    K, centred = len(flips.gram_KK), bool(centre_D.any())
    beyond_C = flips.squares_C - 2 * flips.offsets_X[K:]

    def rays(embeddings_nD: Tensor) -> tuple[Tensor, ...]:
        rows_nD = embeddings_nD.to(dtype)
        if centred:
            rows_nD = rows_nD - centre_D
        products_nX = products(rows_nD, kernel_DX)
        # float64 plus float32 is computed in float64, without a copy
        logits_nK = flips.offsets_X[:K] + products_nX[:, :K]
        farthest_n = torch.linalg.vector_norm(rows_nD - mean_D, dim=1).to(torch.float64).square()
        beyond_nC = torch.add(beyond_C, products_nX[:, K:], alpha=-2)
        farthest_n = (farthest_n + (beyond_nC.amin(dim=1) if flips.nearest else beyond_nC.amax(dim=1))).clamp(min=0)

        predicted_n1 = logits_nK.argmax(dim=1, keepdim=True)
        pull_nK = pulls(logits_nK, predicted_n1, flips.same_KK)
        slope_nK = products(pull_nK, flips.gram_KK)
        square_n = (pull_nK * slope_nK).sum(dim=1)
        return logits_nK, predicted_n1, slope_nK, square_n, farthest_n

    return rays


def _block_caps(dtype: torch.dtype, flips: LinearFlips) -> Callable[[Tensor], Tensor]:
    """Return a function from a block to its critical caps (n,)."""
    rays, root = _block_rays(dtype, flips), math.sqrt(len(flips.centre_D))

    def block_caps(embeddings_nD: Tensor) -> Tensor:
        logits_nK, predicted_n1, slope_nK, square_n, farthest_n = rays(embeddings_nD)
        meeting_n = meetings(logits_nK, slope_nK, predicted_n1, flips.same_KK)
        caps_n = root * meeting_n * square_n.sqrt() / farthest_n.sqrt()
        return torch.where((square_n <= flips.smallest) | (farthest_n == 0), torch.inf, caps_n)

    return block_caps


def first_flipping_caps(
    embeddings_nD: Tensor,
    anchors_CD: Tensor,
    head: Head,
    caps: Sequence[float],
    *,
    farthest_only: bool = False,
    nearest_only: bool = False,
) -> Tensor:
    """Return the first cap of the schedule at which a step towards any anchor flips the prediction, for any head.

    Anchors from the farthest, caps upwards; a sample that has flipped is tested at smaller caps alone. Every anchor
    counts, since a flip need not persist along the ray.

    Args:
        embeddings_nD: (n, D) float16, float32 or float64; the head sees at least float32.
        anchors_CD: (C, D), with the mean of all labelled samples if some class has no label.
        head: Differentiable head in evaluation mode; each row of its output depends on that row alone.
        caps: Caps, ascending.
        farthest_only: Whether the farthest anchor alone is tried: C times faster, and nearly always the same.
        nearest_only: Whether samples are mixed with the nearest anchor alone.

    Returns:
        (n,) float64: one of ``caps``, or +inf where none flips the prediction.

    Source:
        Parvaneh et al., CVPR 2022, algorithm 1 with the schedule of the released code.
    """
    rows_nD = embeddings_nD.to(torch.promote_types(embeddings_nD.dtype, torch.float32))
    mean_D = anchors_CD.to(torch.float64).mean(dim=0)
    centred_CD = anchors_CD.to(torch.float64) - mean_D
    direction_nD = map_rows(lambda block_nD: mixing.direction(block_nD, head)[1], rows_nD)
    distances_nC = map_rows(lambda block_nD: torch.cdist(block_nD.to(torch.float64) - mean_D, centred_CD), rows_nD)
    tried = slice(0, 1) if farthest_only else slice(-1, None) if nearest_only else slice(None)
    distances_nC = distances_nC.sort(dim=1, descending=True).values[:, tried].to(rows_nD.dtype)

    def towards(distance_n: Tensor) -> Callable[[float, Tensor], Tensor]:
        root = math.sqrt(rows_nD.shape[1])
        return lambda cap, left_m: cap / root * distance_n[left_m, None] * direction_nD[left_m]

    return mixing.first_caps(rows_nD, head, caps, map(towards, distances_nC.unbind(dim=1)))


def grid_divergences(embeddings_nD: Tensor, anchors_CD: Tensor, head: Head, caps_n: Tensor) -> Tensor:
    """Return the change of the prediction of any head at each sample's cap, towards the farthest anchor.

    Args:
        embeddings_nD: (n, D), as for ``first_flipping_caps``.
        anchors_CD: (C, D).
        head: Differentiable head.
        caps_n: (n,) float64, the result of ``first_flipping_caps``.

    Returns:
        (n,) float32: half the symmetric Kullback-Leibler divergence, nats; 0 where the cap is inf.
    """
    dtype = torch.promote_types(embeddings_nD.dtype, torch.float32)
    root = math.sqrt(embeddings_nD.shape[1])

    def block_divergences(block_nD: Tensor, caps_n: Tensor) -> Tensor:
        rows_nD = block_nD.to(dtype)
        farthest_n = torch.cdist(block_nD.to(torch.float64), anchors_CD.to(torch.float64)).amax(dim=1)
        step_n = torch.where(caps_n < torch.inf, caps_n, 0.0) / root * farthest_n
        mixed_nD = rows_nD + step_n[:, None].to(dtype) * mixing.direction(rows_nD, head)[1]
        with torch.no_grad():
            return Distributions(head(rows_nD)).from_each(Distributions(head(mixed_nD)))

    return map_rows(block_divergences, embeddings_nD, caps_n).to(torch.float32)
