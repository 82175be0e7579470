"""Monte-Carlo dropout: passes through the network in which only its dropout layers are at work.

Everything else stays in evaluation mode: in training mode batch normalisation would use and overwrite its statistics.
A pass has one mask for each dropout layer, the same for all samples, drawn from seed, pass and layer. So a sample's
logits do not depend on the batch it is in, and a pass is one network drawn from the posterior, as BALD means it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from alfamix_core.acquisition import noise
from alfamix_core.errors import InputError
from alfamix_core.learning.network import Network

# a mask of whole channels has one number a channel
_ELEMENTS = (nn.Dropout,)
_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """Return the network's dropout layers.

    Raises:
        InputError: it has none, or none that drops anything.
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
    """Multiply what the dropout layers return by the masks of one pass; the layers count in the order of their use."""
    used = 0

    def drop(layer: nn.Module, inputs: object, values: Tensor) -> Tensor:
        nonlocal used
        assert isinstance(layer, _ELEMENTS + _CHANNELS)
        key = noise.fold(seed, noise.DROPOUT_MASKS, number, used)
        used += 1
        shape = values.shape[1:]
        if isinstance(layer, _CHANNELS):
            shape = torch.Size([shape[0], *[1] * (len(shape) - 1)])
        # the generator of torch takes 63 bits
        numbers = torch.rand(shape, generator=torch.Generator().manual_seed(key >> 1))
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

    Costs as much as ``passes`` plain passes.

    Args:
        network: in evaluation mode, on the device of the images.
        images_bCSS: (b, C, size, size) uint8; b is the same for all batches of a pool.
        passes: T >= 1.
        seed: of the masks.

    Returns:
        (b, T, K) float32, from the embeddings before they are rounded.

    Raises:
        InputError: the network has no dropout layer, or there is no pass.

    Source:
        Gal, Ghahramani, "Dropout as a Bayesian approximation", ICML 2016; one mask for all samples as in Kirsch, van
        Amersfoort, Gal, "BatchBALD", NeurIPS 2019.
    """
    if passes < 1:
        raise InputError(f"the number of passes with dropout must be at least 1, not {passes}")
    layers = dropout_layers(network)
    found = []
    for number in range(passes):
        with torch.no_grad(), _masks(layers, seed, number):
            found.append(network(images_bCSS).float())
    return torch.stack(found, dim=1)
