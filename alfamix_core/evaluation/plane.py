"""A two-dimensional map of embeddings, for the report."""

import torch
from torch import Tensor


def principal_plane(embeddings_nD: Tensor) -> Tensor:
    """Project embeddings onto their first two principal components.

    Args:
        embeddings_nD: (n, D), any floating dtype.

    Returns:
        (n, 2) float64 coordinates, the first with the larger variance. The largest weight of each component is
        positive, so that equal inputs give equal maps. A component that does not exist has coordinates 0.
    """
    rows_nD = embeddings_nD.to(torch.float64)
    if not len(rows_nD):
        return torch.zeros(0, 2, dtype=torch.float64)
    rows_nD = rows_nD - rows_nD.mean(dim=0)
    values, vectors_DD = torch.linalg.eigh(rows_nD.T @ rows_nD)
    axes_D2 = vectors_DD[:, values.argsort(descending=True, stable=True)[:2]]
    largest_2 = axes_D2.abs().argmax(dim=0)
    axes_D2 = axes_D2 * torch.sign(axes_D2[largest_2, torch.arange(axes_D2.shape[1])])
    plane_n2 = torch.zeros(len(rows_nD), 2, dtype=torch.float64)
    plane_n2[:, : axes_D2.shape[1]] = rows_nD @ axes_D2
    return plane_n2
