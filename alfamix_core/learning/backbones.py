"""Backbones by name: two small ones of our own, EfficientNet-Lite0, and every classification model of torchvision.

torchvision is imported only for its own models, because importing it takes as long as importing torch.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from alfamix_core.learning import efficientnet_lite
from alfamix_core.learning.images import channels
from alfamix_core.learning.network import Network
from alfamix_core.learning.pixels import from_settings
from alfamix_core.records.project import ImageSettings, ModelSettings

OWN = ("small_cnn", "mlp")


def initial(model: ModelSettings, image: ImageSettings, classes: int, seed: int) -> Network:
    """Return a network with random weights on the CPU, in evaluation mode.

    The same seed gives the same weights, and the global random state does not change.

    Args:
        model: Settings of the model; only the backbone's name and the dropout are read.
        image: Settings of the model's input.
        classes: Number of classes, K.
        seed: Seed for the initial weights.

    Raises:
        InputError: The backbone is unknown, or cannot take images of this size.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs too
        torch.default_generator.manual_seed(seed)
        return skeleton(model, image, classes).eval()


def skeleton(model: ModelSettings, image: ImageSettings, classes: int) -> Network:
    """Return a network with weights drawn from the global random state; on the meta device none are drawn.

    Raises:
        InputError: The backbone is unknown, or cannot take images of this size.
    """
    channel_count = channels(image) if model.backbone in OWN else 3
    if model.backbone == "small_cnn":
        encoder: nn.Module = _SmallCNN(channel_count, image.size)
        embedding_size = _SmallCNN.embedding_size
    elif model.backbone == "mlp":
        embedding_size = 256
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(channel_count * image.size**2, embedding_size), nn.ReLU())
    elif model.backbone == efficientnet_lite.NAME:
        encoder, embedding_size = efficientnet_lite.EfficientNetLite0(), efficientnet_lite.EMBEDDING_SIZE
    else:
        from alfamix_core.learning.torchvision_encoders import encoder_of

        encoder, embedding_size = encoder_of(model.backbone, image.size)
    return Network(
        encoder,
        embedding_size,
        classes,
        pixels=from_settings(image, channel_count),
        repeat_grey=model.backbone not in OWN,
        dropout=model.dropout,
    )


class _SmallCNN(nn.Module):
    """Four convolutions for images of about 8 to 64 pixels; the embedding is 2 x 2 cells of 64 numbers, none negative.

    It uses group normalisation because the first rounds have few labels: their batches are too few and too small for
    the running statistics of batch normalisation to mean anything.
    """

    embedding_size = 256

    def __init__(self, channel_count: int, size: int) -> None:
        super().__init__()
        # halve the maps, early for speed and at least once, until they are about 8 wide
        halvings = {2} if size < 16 else set(range(1, 1 + min(4, round(math.log2(size / 8)))))
        layers: list[nn.Module] = []
        for number, (width_in, width_out) in enumerate(pairwise((channel_count, 32, 32, 64, 64)), start=1):
            layers += [nn.Conv2d(width_in, width_out, 3, padding=1, bias=False), nn.GroupNorm(8, width_out), nn.ReLU()]
            if number in halvings:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, images_nCSS: Tensor) -> Tensor:
        maps: Tensor = self.layers(images_nCSS)
        # slices, because the gradient of adaptive pooling is not deterministic on CUDA
        rows, columns = maps.shape[2] // 2, maps.shape[3] // 2
        cells = [
            maps[:, :, vertical, horizontal].mean(dim=(2, 3))
            for vertical in (slice(None, rows), slice(rows, None))
            for horizontal in (slice(None, columns), slice(columns, None))
        ]
        return torch.cat(cells, dim=1)
