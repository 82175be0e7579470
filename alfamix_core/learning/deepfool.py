"""DeepFool: how little an image must change until the network predicts another class."""

from collections.abc import Callable

import torch
from torch import Tensor

from alfamix_core.errors import InputError

_NO_PATH = -torch.finfo(torch.float32).max
_OVERSHOOT = 0.02  # share by which a step is lengthened, so that it does not end on the linear boundary
_ITERATIONS = 50


def deepfool_norms(
    forward: Callable[[Tensor], Tensor],
    inputs_bX: Tensor,
    *,
    wanted_b: Tensor | None = None,
    classes: int = 10,
) -> Tensor:
    """Return the norm of the smallest change that crosses the nearest boundary, found by linearised steps.

    Every pass has all b rows, so a row's bits do not depend on when its neighbours finish. An iteration costs a
    forward pass, and a backward pass for each class except the predicted one; one to five iterations are usual. A row
    at an exact tie of two classes is on the boundary, which counts as crossed with the change so far. Changes are not
    clipped to the range of pixels.

    Args:
        forward: Differentiable function from (b, …) to logits (b, K), K >= 2; each row of its output depends only on
            the same row of its input.
        inputs_bX: (b, …), any dtype; changes are added in float64.
        wanted_b: (b,) bool, the rows to compute; None computes all. The results of the other rows mean nothing.
        classes: Number of the most likely classes to consider, >= 2.

    Returns:
        (b,) float32, as ``Features.deepfool_n``: the norm without overshoot, in the unit of the inputs; below 0 if the
        prediction did not change.

    Raises:
        InputError: ``classes`` is less than 2.

    Source:
        Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks", CVPR
        2016, algorithm 2; the ten most likely classes and the overshoot come from its code. The released code of
        ALFA-Mix uses the last class instead of the nearest, and no overshoot, so its steps often end on the boundary.
    """
    if classes < 2:
        raise InputError(f"DeepFool must consider 2 classes or more, not {classes}")
    exact_bX = inputs_bX.detach().to(torch.float64)
    change_bX = torch.zeros_like(exact_bX)
    b = len(exact_bX)
    crossed_b = torch.zeros(b, dtype=torch.bool, device=exact_bX.device)
    wanted_b = torch.ones_like(crossed_b) if wanted_b is None else wanted_b.to(exact_bX.device)
    ranked_bk = torch.empty(0)
    for iteration in range(_ITERATIONS + 1):
        with torch.enable_grad():
            leaf_bX = (exact_bX + (1 + _OVERSHOOT) * change_bX).requires_grad_(True)
            logits_bK = forward(leaf_bX)
            if not iteration:
                ranked_bk = logits_bK.detach().sort(dim=1, descending=True, stable=True).indices[:, :classes]
            predicted_b = ranked_bk[:, 0]
            # a change that overflows does not count as a change of the prediction
            finite_b = logits_bK.detach().isfinite().all(dim=1)
            crossed_b |= (logits_bK.detach().argmax(dim=1) != predicted_b) & finite_b
            if iteration == _ITERATIONS or not bool((wanted_b & ~crossed_b).any()):
                break
            step_bX, nearest_b = _step(leaf_bX, logits_bK, ranked_bk)
        crossed_b |= nearest_b == 0
        change_bX = change_bX + torch.where(_like(crossed_b, change_bX), 0.0, step_bX)
    norms_b = change_bX.reshape(b, -1).norm(dim=1).clamp(max=-_NO_PATH).to(torch.float32)
    return torch.where(crossed_b, norms_b, torch.where(norms_b > 0, -norms_b, _NO_PATH))


def _step(leaf_bX: Tensor, logits_bK: Tensor, ranked_bk: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's change to the nearest linearised boundary, and its length; gradients must be enabled.

    Args:
        leaf_bX: (b, …) float64, the changed inputs.
        logits_bK: (b, K), their logits.
        ranked_bk: (b, k) int64, the classes to consider; the first is the predicted one.
    """
    row_b = torch.arange(len(leaf_bX), device=leaf_bX.device)
    step_bX = torch.zeros_like(leaf_bX)
    nearest_b = torch.full((len(leaf_bX),), torch.inf, dtype=torch.float64, device=leaf_bX.device)
    for rank in range(1, ranked_bk.shape[1]):
        rise_b = logits_bK[row_b, ranked_bk[:, rank]] - logits_bK[row_b, ranked_bk[:, 0]]
        has_next = rank + 1 < ranked_bk.shape[1]
        (slope_bX,) = torch.autograd.grad(rise_b.sum(), leaf_bX, retain_graph=has_next)
        square_b = slope_bX.reshape(len(slope_bX), -1).square().sum(dim=1)
        gap_b = rise_b.detach().to(torch.float64).abs()
        distance_b = torch.where(square_b > 0, gap_b / square_b.sqrt(), torch.inf)
        nearer_b = distance_b < nearest_b
        share_b = torch.where(nearer_b, gap_b / square_b, 0.0)
        step_bX = torch.where(_like(nearer_b, slope_bX), _like(share_b, slope_bX) * slope_bX, step_bX)
        nearest_b = torch.where(nearer_b, distance_b, nearest_b)
    return step_bX, nearest_b


def _like(value_b: Tensor, rows_bX: Tensor) -> Tensor:
    """Return a value for each row in a shape that broadcasts over the row."""
    return value_b.reshape(-1, *[1] * (rows_bX.ndim - 1))
