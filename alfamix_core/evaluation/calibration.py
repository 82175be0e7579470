"""The temperature at which a model's confidence is right."""

from torch import Tensor

from alfamix_core.evaluation.metrics import calibration_error

_GRID = tuple(step / 10 for step in range(10, 201))
_MOST_SAMPLES = 10_000


def fit_temperature(logits_nK: Tensor, labels_n: Tensor) -> float:
    """Return the number by which logits must be divided so that confidence agrees with accuracy.

    The temperature of the least expected calibration error, of 1.0, 1.1, … 20.0. It only ever softens: a model that
    is not confident enough keeps 1.

    Args:
        logits_nK: (n, K), finite, of samples that the model was not trained on. Of more than 10,000, as many, evenly
            spaced, are looked at.
        labels_n: (n,) int64 in [0, K).

    Returns:
        The smallest such temperature; 1 without a sample.

    Source:
        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017; by calibration error on
        this grid: Bae, Noh, Sutherland, "Uncertainty herding", ICLR 2025.
    """
    if not len(logits_nK):
        return 1.0
    step = -(-len(logits_nK) // _MOST_SAMPLES)
    logits_nK, labels_n = logits_nK[::step].double(), labels_n[::step]
    right_n = logits_nK.argmax(dim=1) == labels_n
    # the largest probability is 1 / Σ exp(l - max l), at every temperature that of the same class
    gaps_nK = logits_nK - logits_nK.amax(dim=1, keepdim=True)
    errors = [calibration_error(1 / (gaps_nK / temperature).exp_().sum(dim=1), right_n) for temperature in _GRID]
    return min(zip(errors, _GRID, strict=True))[1]
