"""DeepFool: how little an image must change until the network predicts another class."""

from collections.abc import Callable

import torch
from torch import Tensor

from alfamix_core.errors import InputError

_NO_WAY = -torch.finfo(torch.float32).max


def deepfool_norms(
    forward: Callable[[Tensor], Tensor],
    inputs_bX: Tensor,
    *,
    wanted_b: Tensor | None = None,
    classes: int = 10,
    overshoot: float = 0.02,
    iterations: int = 50,
) -> Tensor:
    """Return the norm of the smallest change that crosses the nearest boundary, step by step as if classes were linear.

    Every pass has all b rows, so a row's bits do not depend on how soon its neighbours are done. An iteration costs a
    forward pass and a backward pass for each class but the predicted one; usual are one to five iterations. A row at
    an exact tie of two classes is on the boundary: that counts as crossed, with the way so far. Changes are not kept
    within the range of pixels.

    Args:
        forward: from (b, …) to logits (b, K), differentiable, K >= 2; each row of its output depends on that row alone.
        inputs_bX: (b, …) of any dtype; changes are added to them in float64.
        wanted_b: (b,) bool: rows that are of interest, all if left out; the others' results mean nothing.
        classes: how many of the most likely classes are looked at, >= 2.
        overshoot: the step is longer by this share than the way to the linear boundary, which it would end on.
        iterations: at most so many.

    Returns:
        (b,) float32, as ``Features.deepfool_n``: the norm without overshoot, in the unit of the inputs; below 0 where
        the prediction did not change.

    Raises:
        InputError: fewer than two classes are looked at.

    Source:
        Moosavi-Dezfooli, Fawzi, Frossard, "DeepFool: a simple and accurate method to fool deep neural networks", CVPR
        2016, algorithm 2; the ten most likely classes and the overshoot are its code's. The released code of ALFA-Mix
        keeps the last class in place of the nearest and has no overshoot: a step then often ends on the boundary.
    """
    if classes < 2:
        raise InputError(f"DeepFool must look at 2 classes or more, not {classes}")
    exact_bX = inputs_bX.detach().to(torch.float64)
    way_bX = torch.zeros_like(exact_bX)
    b = len(exact_bX)
    crossed_b = torch.zeros(b, dtype=torch.bool, device=exact_bX.device)
    wanted_b = torch.ones_like(crossed_b) if wanted_b is None else wanted_b.to(exact_bX.device)
    each_b = torch.arange(b, device=exact_bX.device)
    ranked_bk = torch.empty(0)
    for iteration in range(iterations + 1):
        with torch.enable_grad():
            leaf_bX = (exact_bX + (1 + overshoot) * way_bX).requires_grad_(True)
            logits_bK = forward(leaf_bX)
            if not iteration:
                ranked_bk = logits_bK.detach().sort(dim=1, descending=True, stable=True).indices[:, :classes]
            predicted_b = ranked_bk[:, 0]
            # a way that leads out of the range of numbers changes nothing
            sound_b = logits_bK.detach().isfinite().all(dim=1)
            crossed_b |= (logits_bK.detach().argmax(dim=1) != predicted_b) & sound_b
            if iteration == iterations or not bool((wanted_b & ~crossed_b).any()):
                break
            nearest_b = torch.full((b,), torch.inf, dtype=torch.float64, device=exact_bX.device)
            step_bX = torch.zeros_like(exact_bX)
            for rank in range(1, ranked_bk.shape[1]):
                rise_b = logits_bK[each_b, ranked_bk[:, rank]] - logits_bK[each_b, predicted_b]
                more = rank + 1 < ranked_bk.shape[1]
                (slope_bX,) = torch.autograd.grad(rise_b.sum(), leaf_bX, retain_graph=more)
                square_b = slope_bX.reshape(b, -1).square().sum(dim=1)
                gap_b = rise_b.detach().to(torch.float64).abs()
                distance_b = torch.where(square_b > 0, gap_b / square_b.sqrt(), torch.inf)
                nearer_b = distance_b < nearest_b
                share_b = torch.where(nearer_b, gap_b / square_b, 0.0)
                shape = (-1, *[1] * (slope_bX.ndim - 1))
                step_bX = torch.where(nearer_b.reshape(shape), share_b.reshape(shape) * slope_bX, step_bX)
                nearest_b = torch.where(nearer_b, distance_b, nearest_b)
        crossed_b |= nearest_b == 0
        way_bX = way_bX + torch.where(crossed_b.reshape(-1, *[1] * (way_bX.ndim - 1)), 0.0, step_bX)
    norms_b = way_bX.reshape(b, -1).norm(dim=1).clamp(max=-_NO_WAY).to(torch.float32)
    return torch.where(crossed_b, norms_b, torch.where(norms_b > 0, -norms_b, _NO_WAY))
