"""Monte-Carlo dropout: passes through the network in which only the dropout layers are active.

Everything else stays in evaluation mode, because in training mode batch normalisation would use batch statistics and
overwrite the running ones. A pass has one mask per dropout layer, shared by all samples and drawn from seed, pass and
layer. So a sample's logits do not depend on its batch, and a pass is one network drawn from the posterior, as BALD
requires.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from alfamix_core.acquisition import noise
from alfamix_core.errors import InputError
from alfamix_core.learning.network import Network

# layers that drop single elements, and layers that drop whole channels
_ELEMENTS = (nn.Dropout,)
_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """Return the network's dropout layers.

    Raises:
        InputError: The network has no dropout layer that drops anything.
    """
    layers: list[nn.Module] = [
        module
        for module in network.modules()
        if isinstance(module, _ELEMENTS + _CHANNELS) and isinstance(module.p, float | int) and module.p > 0
    ]
    if not layers:
        raise InputError(
            "passes with dropout need a model with a dropout layer, and this one has none: set model.dropout, choose "
            "another model.backbone, such as efficientnet_b0, or another strategy than bald"
        )
    return layers


@contextmanager
def _masks(layers: list[nn.Module], seed: int, number: int) -> Iterator[None]:
    """Multiply the outputs of the dropout layers by the masks of one pass; layers are numbered in order of use."""
    layer_number = 0

    def drop(layer: nn.Module, inputs: object, values: Tensor) -> Tensor:
        nonlocal layer_number
        assert isinstance(layer, _ELEMENTS + _CHANNELS)
        noise_key = noise.fold(seed, noise.DROPOUT_MASKS, number, layer_number)
        layer_number += 1
        shape = values.shape[1:]
        if isinstance(layer, _CHANNELS):
            shape = torch.Size([shape[0], *[1] * (len(shape) - 1)])
        # a torch generator takes 63 bits
        numbers = torch.rand(shape, generator=torch.Generator().manual_seed(noise_key >> 1))
        kept = (numbers >= layer.p).to(values.dtype)
        return values * (kept / (1 - layer.p) if layer.p < 1 else kept).to(values.device)

    hooks = [layer.register_forward_hook(drop) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def dropout_passes(network: Network, images_bCSS: Tensor, *, passes: int, seed: int) -> Tensor:
    """Return the logits of each image in each pass.

    The cost is that of ``passes`` plain passes.

    Args:
        network: Network in evaluation mode, on the device of the images.
        images_bCSS: (b, C, size, size) uint8; b is the same for all batches of a pool.
        passes: Number of passes, T >= 1.
        seed: Seed for the masks.

    Returns:
        (b, T, K) float32, computed from the embeddings before rounding.

    Raises:
        InputError: The network has no dropout layer, or ``passes`` is less than 1.

    Source:
        Gal, Ghahramani, "Dropout as a Bayesian approximation", ICML 2016; one mask for all samples as in Kirsch, van
        Amersfoort, Gal, "BatchBALD", NeurIPS 2019.
    """
    if passes < 1:
        raise InputError(f"the number of passes with dropout must be at least 1, not {passes}")
    layers = dropout_layers(network)
    logits = []
    for number in range(passes):
        with torch.no_grad(), _masks(layers, seed, number):
            logits.append(network(images_bCSS).float())
    return torch.stack(logits, dim=1)
