"""Augmentation and normalisation of pixels before the model's first layer.

They process whole batches on the device, with random numbers from a generator that is passed in. torchvision's
transforms v2 are not used: they draw one set of random numbers for a whole batch, from the global state, and importing
them costs every process 1.1 s. The arithmetic equals theirs to the bit, as tests show.
"""

import torch
from torch import Tensor

from alfamix_core.records.model import PixelStatistics


def normalise(images_nCSS: Tensor, pixels: PixelStatistics) -> Tensor:
    """Return normalised pixels, as the model's first layer expects them.

    Args:
        images_nCSS: (n, C, size, size) uint8, C 1 or 3.
        pixels: Mean and deviation of pixels from 0 to 1, one per channel or one for all.

    Returns:
        The same shape, float32.
    """
    mean = torch.tensor(pixels.mean, device=images_nCSS.device).reshape(-1, 1, 1)
    std = torch.tensor(pixels.std, device=images_nCSS.device).reshape(-1, 1, 1)
    return images_nCSS.float().div_(255).sub_(mean).div_(std)


def augment(images_nCSS: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Change each training image at random, independently of the others.

    Args:
        images_nCSS: (n, C, size, size) uint8.
        kind: ``none``; ``flip``, left to right with probability 1/2; ``crop``, a shift by up to an eighth of the side,
            where the image is mirrored at its edges; or ``flip_crop``, both.
        generator: Generator on the CPU, whatever the images' device, so that a seed has one meaning everywhere. The
            numbers drawn depend only on ``kind`` and n.

    Returns:
        The same shape and dtype.
    """
    if "flip" in kind:
        flip_n = (torch.rand(len(images_nCSS), generator=generator) < 0.5).to(images_nCSS.device)
        images_nCSS = torch.where(flip_n[:, None, None, None], images_nCSS.flip(3), images_nCSS)
    if "crop" in kind:
        size = images_nCSS.shape[-1]
        margin = max(1, size // 8)
        shift_2n = torch.randint(2 * margin + 1, (2, len(images_nCSS)), generator=generator)
        images_nCSS = _crop(images_nCSS, shift_2n.to(images_nCSS.device), margin)
    return images_nCSS


def _crop(images_nCSS: Tensor, shift_2n: Tensor, margin: int) -> Tensor:
    """Mirror each image outwards by a margin, and cut its square from its own row and column."""
    size = images_nCSS.shape[-1]
    span_S = torch.arange(-margin, size - margin, device=images_nCSS.device)
    row_nS, column_nS = (_mirrored(shift_n[:, None] + span_S, size) for shift_n in shift_2n)
    # two gathers take a fifth of the time that a padded copy takes at 224 pixels
    images_nCSS = images_nCSS.gather(2, row_nS[:, None, :, None].expand(images_nCSS.shape))
    return images_nCSS.gather(3, column_nS[:, None, None, :].expand(images_nCSS.shape))


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Return indices within an image for those up to ``size - 1`` beyond its edges; the edge is not repeated."""
    index = index.abs()
    return torch.where(index < size, index, 2 * (size - 1) - index)
