"""Multinomial logistic regression: the linear head on features that do not change, fitted to convergence."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alfamix_core.errors import InputError

_MAX_STEPS = 1_000
_MEMORY = 30  # earlier steps from which L-BFGS estimates the curvature
_GRADIENT = 1e-8  # of the sum over the samples; float64 allows no less


@dataclass(frozen=True)
class HeadFit:
    """A fitted head.

    Attributes:
        weight_KD: (K, D) float64.
        bias_K: (K,) float64.
        passes: Number of passes over the rows.
        is_converged: Whether the gradient vanished; otherwise the steps ran out or became too small for float64.
    """

    weight_KD: Tensor
    bias_K: Tensor
    passes: int
    is_converged: bool


def fit_head(rows_nD: Tensor, labels_n: Tensor, classes: int, *, penalty: float, balanced: bool = False) -> HeadFit:
    """Minimise the sum of the samples' cross-entropies plus ``penalty / 2`` times the squared weights, by L-BFGS.

    The biases bear no penalty. The minimum is unique up to a constant on all biases, which stay at mean 0, and nothing
    random leads to it. The computation runs in float64 on the CPU, on rows from which the mean is subtracted: the
    free biases make up for it, and the problem is better conditioned.

    A class without a sample has no minimum. It gets no weights, and the bias of a class that is rarer by the number
    of samples than the least likely of the others.

    Args:
        rows_nD: (n, D) finite features, any floating dtype.
        labels_n: (n,) int64 in [0, K), of two classes or more.
        classes: Number of classes, K.
        penalty: Greater than 0; 1 / C of scikit-learn.
        balanced: Whether the samples of each class weigh as much as those of any other, n in total.

    Returns:
        The head, for the rows as given.

    Raises:
        InputError: The labels are of fewer than two classes.

    Source:
        Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 1989.
    """
    count_K = labels_n.bincount(minlength=classes)
    present_P = count_K.nonzero()[:, 0]
    label_n, count_P = torch.searchsorted(present_P, labels_n), count_K[present_P]
    if len(present_P) < 2:
        raise InputError(f"a head must be fitted to labels of 2 classes or more, not {len(present_P)}")
    exact_nD = rows_nD.to("cpu", torch.float64)
    mean_D = exact_nD.mean(dim=0)
    centred_nD = exact_nD - mean_D
    weight_P = len(labels_n) / (len(present_P) * count_P.double()) if balanced else None
    parameters_PE = torch.zeros(len(present_P), rows_nD.shape[1] + 1, dtype=torch.float64)  # E: D weights and the bias
    passes, is_converged = _minimise(parameters_PE, centred_nD, label_n, weight_P, penalty)
    weight_KD = torch.zeros(classes, rows_nD.shape[1], dtype=torch.float64)
    weight_KD[present_P] = parameters_PE[:, :-1]
    bias_K = (parameters_PE[:, -1].min() - torch.tensor(float(len(labels_n))).log()).double().expand(classes).clone()
    bias_K[present_P] = parameters_PE[:, -1]
    return HeadFit(weight_KD, bias_K - weight_KD @ mean_D, passes, is_converged)


def _minimise(
    parameters_PE: Tensor, rows_nD: Tensor, label_n: Tensor, weight_P: Tensor | None, penalty: float
) -> tuple[int, bool]:
    """Move the parameters to the minimum; return the number of passes and whether the gradient vanished."""
    parameters_PE.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [parameters_PE],
        max_iter=_MAX_STEPS,
        max_eval=2 * _MAX_STEPS,
        tolerance_grad=_GRADIENT,
        tolerance_change=0.0,
        history_size=_MEMORY,
        line_search_fn="strong_wolfe",
    )
    passes = 0

    def loss() -> Tensor:
        nonlocal passes
        passes += 1
        optimiser.zero_grad()
        logits_nP = torch.addmm(parameters_PE[:, -1], rows_nD, parameters_PE[:, :-1].T)
        value = cross_entropy(logits_nP, label_n, weight=weight_P, reduction="sum")
        value = value + penalty / 2 * parameters_PE[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    loss()
    gradient = parameters_PE.grad
    assert gradient is not None
    parameters_PE.requires_grad_(False)
    return passes, bool(gradient.abs().max() <= 100 * _GRADIENT * max(1.0, penalty))
