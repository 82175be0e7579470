"""The loop of the paper over anchors and caps, as it is written there: what the closed form is compared with."""

import torch

from alfamix_core.acquisition import mixing
from alfamix_core.acquisition.schedule import CAPS


def first_caps_by_loop(embeddings_nD, anchors_CD, head, caps=CAPS):
    """Return the first cap at which mixing with any anchor changes the prediction, inf if none does: (n,) float64."""
    predicted_n, direction_nD = mixing.direction(embeddings_nD, head)
    first_n = torch.full(predicted_n.shape, torch.inf, dtype=torch.float64, device=embeddings_nD.device)
    for cap in reversed(caps):
        for anchor_D in anchors_CD.to(embeddings_nD.dtype):
            lengths_n1 = mixing.step_lengths(embeddings_nD, anchor_D, cap)[:, None]
            first_n[head(embeddings_nD + lengths_n1 * direction_nD).argmax(dim=1) != predicted_n] = cap
    return first_n
