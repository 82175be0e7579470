"""The numbers by which pixels are normalised: fixed ones, those of given weights, or those of the training images."""

import math

import torch

from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.distributed import ALONE, Team
from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.project import ImageSettings

IMAGENET = PixelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_IMAGENET_GREY = PixelStatistics(mean=(0.449,), std=(0.226,))  # the averages over the channels
HALF = PixelStatistics(mean=(0.5,), std=(0.5,))
_BATCH = 256
_LEAST_STD = 1 / 255
_DIGITS = 6


def imagenet(channel_count: int) -> PixelStatistics:
    """Return the numbers of ImageNet for an encoder of three channels or one."""
    return IMAGENET if channel_count == 3 else _IMAGENET_GREY


def from_settings(image: ImageSettings, channel_count: int) -> PixelStatistics:
    """Return the numbers that the settings name; if they depend on weights or data, numbers for a start.

    Args:
        image: Settings of the model's input.
        channel_count: Number of channels that the encoder sees.
    """
    if image.normalisation == "numbers":
        return PixelStatistics(mean=image.mean, std=image.std)
    return imagenet(channel_count) if image.normalisation == "imagenet" else HALF


def of_images(images: SampleImages, team: Team = ALONE) -> PixelStatistics:
    """Return the mean and the standard deviation of each channel over all pixels of the readable images.

    They are computed from the number of pixels of each value, so that they depend neither on the order of the images
    nor on the number of processes.

    Args:
        images: Training images; without a readable one, all numbers are 1/2.
        team: Processes that share the reading; all get the same numbers.

    Returns:
        The numbers, to six decimals; a deviation is at least one of the 255 steps of a pixel.
    """
    counts_CV = torch.zeros(images.channels, 256, dtype=torch.int64)
    for batch in images.batches(_BATCH, team.own_batches(torch.arange(len(images)), _BATCH)):
        pixels_nCSS = batch.images_bCSS[: len(batch.index_n)][batch.readable_n]
        counts_CV += torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels_nCSS.unbind(dim=1)])
    counts = torch.stack(team.gathered(counts_CV)).sum(dim=0).tolist()
    return _statistics(counts) if any(counts[0]) else HALF


def _statistics(counts: list[list[int]]) -> PixelStatistics:
    """Return the statistics of the numbers of pixels by channel and value; Python's integers are exact."""
    means, deviations = [], []
    for channel in counts:
        total = sum(channel)
        first = sum(value * count for value, count in enumerate(channel))
        second = sum(value * value * count for value, count in enumerate(channel))
        means.append(round(first / (255 * total), _DIGITS))
        deviation = math.sqrt((total * second - first * first) / total**2) / 255
        deviations.append(round(max(deviation, _LEAST_STD), _DIGITS))
    return PixelStatistics(mean=tuple(means), std=tuple(deviations))
