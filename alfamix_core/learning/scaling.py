"""The scaling of a frozen encoder's output, by statistics that are frozen with the model."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alfamix_core.records.model import FeatureScaling


def scaled(output_nD: Tensor, scaling: FeatureScaling | None) -> Tensor:
    """Return the embeddings (n, D) of an encoder's output (n, D) float32; a row of zeros has no length and stays."""
    if scaling is None:
        return output_nD
    if scaling.kind == "l2":
        return normalize(output_nD, dim=1)
    mean_D, std_D = (torch.tensor(values, device=output_nD.device) for values in (scaling.mean, scaling.std))
    return (output_nD - mean_D) / std_D


def fitted(kind: Literal["l2", "standardised", "raw"], output_nD: Tensor) -> FeatureScaling | None:
    """Return the scaling of the given kind.

    Args:
        kind: Kind of scaling.
        output_nD: (n, D) output of the encoder for the training samples, any floating dtype; n may be 0.

    Returns:
        The scaling; None for raw. A column that does not vary, or has no row, is divided by 1.
    """
    if kind == "raw":
        return None
    if kind == "l2":
        return FeatureScaling(kind="l2")
    exact_nD = output_nD.double()
    mean_D = exact_nD.mean(dim=0) if len(exact_nD) else exact_nD.sum(dim=0)
    variance_D = (exact_nD - mean_D).square().sum(dim=0) / max(len(exact_nD), 1)
    std_D = torch.where(variance_D > 0, variance_D.sqrt(), 1.0)
    return FeatureScaling(kind="standardised", mean=tuple(mean_D.tolist()), std=tuple(std_D.tolist()))
