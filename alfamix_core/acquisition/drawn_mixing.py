"""Mixing with ratios that are drawn at random, and perhaps learned, in place of the closed form.

Each coordinate has a ratio of its own between 0 and a cap, and z' = (1 - α) z + α z*. There is no shortcut: every
cap and anchor costs its own passes through the head, up to the first cap at which a sample flips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.blocks import map_rows, products
from alfamix_core.acquisition.points import Distributions
from alfamix_core.acquisition.types import Head, LinearHead

_SMALLEST = 1e-8


@dataclass(frozen=True)
class Learning:
    """The steps by which ratios learn.

    Attributes:
        rate: Length of a step in each coordinate.
        tests: Number of tests for a flip, with a step between two of them; 1 takes no step.
        loss_weight: Weight of the cross-entropy, which steps raise.
        norm_weight: Weight of the ratios' norm, which steps lower.
    """

    rate: float = 0.1
    tests: int = 5
    loss_weight: float = 1.0
    norm_weight: float = 0.01


_NO_STEP = Learning(tests=1)


@dataclass(frozen=True)
class DrawnFlips:
    """The caps and ratios at which n samples flip.

    Attributes:
        caps_n: (n,) float64, the first cap at which a sample flips, inf if none.
        norms_n: (n,) float32, the smallest norm of the ratios that flip it there, inf if none.
        divergences_n: (n,) float32, half the symmetric divergence, nats, of the predictions before and after mixing
            with these ratios; 0 if none.
    """

    caps_n: Tensor
    norms_n: Tensor
    divergences_n: Tensor


def _logits(head: Head, rows_nD: Tensor) -> Tensor:
    if isinstance(head, LinearHead):
        return products(rows_nD, head.weight_KD.to(rows_nD.dtype).T) + head.bias_K.to(rows_nD.dtype)
    return head(rows_nD)


def _slopes(head: Head, rows_nD: Tensor, predicted_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of rows, and the gradient of the cross-entropy of a class with respect to the rows."""
    if isinstance(head, LinearHead):
        logits_nK = _logits(head, rows_nD)
        pull_nK = logits_nK.softmax(dim=1)
        pull_nK = pull_nK.scatter_add(1, predicted_n[:, None], -torch.ones_like(pull_nK[:, :1]))
        return logits_nK, products(pull_nK, head.weight_KD.to(rows_nD.dtype))
    with torch.enable_grad():
        leaf_nD = rows_nD.detach().clone().requires_grad_(True)
        logits_nK = head(leaf_nD)
        loss = torch.nn.functional.cross_entropy(logits_nK, predicted_n, reduction="sum")
        (gradient_nD,) = torch.autograd.grad(loss, leaf_nD)
    return logits_nK.detach(), gradient_nD


def first_ratios(noise_key: int, positions_n: Tensor, width: int, cap: float) -> Tensor:
    """Return the ratios at the start: normal with mean and deviation cap/2, kept within [1e-8, cap].

    Args:
        noise_key: Key of the random numbers of this cap and anchor.
        positions_n: (n,) int64 >= 0, ascending but for the zeros that fill up a block.
        width: D.
        cap: Largest ratio.

    Returns:
        (n, D) float32.
    """
    return (cap / 2 + cap / 2 * noise.normals(noise_key, positions_n, width)).clamp(_SMALLEST, cap)


def mix(
    embeddings_nD: Tensor,
    predicted_n: Tensor,
    ratios_nD: Tensor,
    anchor_D: Tensor,
    head: Head,
    cap: float,
    learning: Learning,
) -> tuple[Tensor, Tensor]:
    """Mix each row with one anchor, test whether it flips, and let the ratios learn to flip it.

    A step goes by the sign of the gradient of -CE(head(z'), y) + 0.01 ‖α‖, 0.1 long by default: the released
    code makes a new Adam for each step, which then is the sign. That code takes a last step, of 0.01, whose outcome it
    does not use; this function leaves it out.

    Args:
        embeddings_nD: (n, D), a block.
        predicted_n: (n,) int64, the class y predicted without mixing.
        ratios_nD: (n, D) α at the start.
        anchor_D: (D,) z*.
        head: Head that computes each row's logits.
        cap: Largest ratio.
        learning: Number of tests, and the steps between them.

    Returns:
        The smallest ‖α‖ that flips each row (n,), inf if none, and the logits (n, K) after mixing with it.
    """
    towards_nD = anchor_D - embeddings_nD
    smallest_n = torch.full_like(embeddings_nD[:, 0], torch.inf)
    flipped_nK = None
    for test in range(learning.tests):
        mixed_nD = embeddings_nD + ratios_nD * towards_nD
        if test + 1 < learning.tests:
            logits_nK, slope_nD = _slopes(head, mixed_nD, predicted_n)
        else:
            logits_nK, slope_nD = _logits(head, mixed_nD), mixed_nD
        norm_n = ratios_nD.norm(dim=1)
        better_n = (logits_nK.argmax(dim=1) != predicted_n) & (norm_n < smallest_n)
        smallest_n = torch.where(better_n, norm_n, smallest_n)
        flipped_nK = logits_nK if flipped_nK is None else torch.where(better_n[:, None], logits_nK, flipped_nK)
        if test + 1 < learning.tests:
            gradient_nD = learning.norm_weight * ratios_nD / norm_n[:, None]
            gradient_nD = gradient_nD - learning.loss_weight * slope_nD * towards_nD
            step_nD = learning.rate * gradient_nD / (gradient_nD.abs() + _SMALLEST)
            ratios_nD = (ratios_nD - step_nD).clamp(_SMALLEST, cap)
    assert flipped_nK is not None
    return smallest_n, flipped_nK


def drawn_flips(
    embeddings_nD: Tensor,
    positions_n: Tensor,
    anchors_CD: Tensor,
    head: Head,
    caps: Sequence[float],
    seed: int,
    *,
    learned: bool,
    learning: Learning = Learning(),
) -> DrawnFlips:
    """Return the first cap at which mixing with any anchor flips the prediction.

    Costs at most C passes through the head for each cap, with learned ratios 9 C: five forward, four backward.

    Args:
        embeddings_nD: (n, D) float16, float32 or float64; the head sees at least float32.
        positions_n: (n,) int64, ascending, to which the ratios belong.
        anchors_CD: (C, D), with the mean of all labelled samples if some class has no label.
        head: Head whose output rows each depend on their own input row alone.
        caps: Caps, ascending.
        seed: Seed of the ratios.
        learned: Whether the ratios take steps; otherwise they are tested as they are drawn.
        learning: Steps.

    Returns:
        For each sample its first cap; samples that have flipped are skipped at larger ones.

    Source:
        The released code of Parvaneh et al., CVPR 2022: ``alpha_opt`` and, without it, the ablation of section 4.4.
    """
    dtype = torch.promote_types(embeddings_nD.dtype, torch.float32)
    rows_nD, anchors_CD = embeddings_nD.to(dtype), anchors_CD.to(dtype)
    n, D = rows_nD.shape
    with torch.no_grad():
        before_nK = map_rows(lambda block_nD: _logits(head, block_nD), rows_nD)
    predicted_n = before_nK.argmax(dim=1)
    caps_n = torch.full((n,), torch.inf, dtype=torch.float64, device=rows_nD.device)
    norms_n = torch.full((n,), torch.inf, dtype=dtype, device=rows_nD.device)
    after_nK = before_nK.clone()
    left_m = torch.arange(n, device=rows_nD.device)
    for number, cap in enumerate(caps):
        for index, anchor_D in enumerate(anchors_CD):
            if not len(left_m):
                break
            noise_key = noise.fold(seed, noise.MIXING_RATIOS, number, index)

            def block_mix(
                rows_mD: Tensor,
                positions_m: Tensor,
                predicted_m: Tensor,
                noise_key: int = noise_key,
                anchor_D: Tensor = anchor_D,
                cap: float = cap,
            ) -> Tensor:
                ratios_mD = first_ratios(noise_key, positions_m, D, cap).to(dtype)
                with torch.no_grad():
                    norm_m, logits_mK = mix(
                        rows_mD, predicted_m, ratios_mD, anchor_D, head, cap, learning if learned else _NO_STEP
                    )
                return torch.cat([norm_m[:, None], logits_mK], dim=1)

            mixed_mX = map_rows(block_mix, rows_nD[left_m], positions_n[left_m], predicted_n[left_m])
            better_m = mixed_mX[:, 0] < norms_n[left_m]
            flipped_m = left_m[better_m]
            caps_n[flipped_m] = cap
            norms_n[flipped_m] = mixed_mX[better_m, 0]
            after_nK[flipped_m] = mixed_mX[better_m, 1:]
        left_m = (caps_n == torch.inf).nonzero()[:, 0]
    return DrawnFlips(caps_n, norms_n.to(torch.float32), divergences(before_nK, after_nK))


def divergences(before_nK: Tensor, after_nK: Tensor) -> Tensor:
    """Return half the symmetric divergence of the predictions of two sets of logits (n, K): (n,) float32, nats."""

    def of_block(before_nK: Tensor, after_nK: Tensor) -> Tensor:
        return Distributions(before_nK).from_each(Distributions(after_nK))

    return map_rows(of_block, before_nK, after_nK).to(torch.float32)
