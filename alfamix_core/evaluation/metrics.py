"""The quality of a model's predictions on labelled samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.evaluation.class_metrics import ClassMetrics, class_metrics

_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """The metrics of one model on one set of samples.

    Attributes:
        samples: Number of samples, at least one.
        accuracy: Share of samples whose predicted class is their label.
        macro_f1: Mean F1 of the classes that have a sample in the set; classes without one are left out.
        expected_calibration_error: Mean distance between confidence and accuracy over 15 bins of equal width in
            confidence, weighted by their numbers of samples; 0 is perfect.
        per_class: Metrics by class, in the order of the classes.
        confusion: (K, K) counts; the row is the label, the column the prediction.
    """

    samples: int
    accuracy: float
    macro_f1: float
    expected_calibration_error: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def summary(self) -> dict[str, float]:
        """Return the metrics that a round records: finite numbers by name."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "expected_calibration_error": self.expected_calibration_error,
            "samples": float(self.samples),
        }


def measure(logits_nK: Tensor, labels_n: Tensor) -> Metrics | None:
    """Compare predictions with labels.

    Args:
        logits_nK: (n, K), finite, on the CPU; the prediction is the first of the largest.
        labels_n: (n,) int64 in [0, K).

    Returns:
        The metrics, or None without samples.

    Source:
        Expected calibration error: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML
        2017, equation 3; a bin includes its upper edge.
    """
    total, classes = logits_nK.shape
    if not total:
        return None
    predicted_n = logits_nK.argmax(dim=1)
    confusion_KK = torch.bincount(labels_n * classes + predicted_n, minlength=classes**2).reshape(classes, classes)
    confusion = tuple(tuple(row) for row in confusion_KK.tolist())
    per_class = class_metrics(confusion)
    f1_scores = [metrics.f1 for metrics in per_class if metrics.support]
    return Metrics(
        samples=total,
        accuracy=confusion_KK.diagonal().sum().item() / total,
        macro_f1=sum(f1_scores) / len(f1_scores),
        expected_calibration_error=calibration_error(
            logits_nK.double().softmax(dim=1).amax(dim=1), predicted_n == labels_n
        ),
        per_class=per_class,
        confusion=confusion,
    )


def calibration_error(confidence_n: Tensor, correct_n: Tensor) -> float:
    """Return the mean distance between confidence and accuracy over 15 equal bins of confidence.

    Args:
        confidence_n: (n,) float64, largest probability of each sample, n >= 1.
        correct_n: (n,) bool, whether the prediction is the label.
    """
    bin_n = (confidence_n * _BINS).ceil().long().clamp(1, _BINS) - 1
    confidence_B = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bin_n, confidence_n)
    correct_B = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bin_n, correct_n.double())
    return (confidence_B - correct_B).abs().sum().item() / len(confidence_n)
