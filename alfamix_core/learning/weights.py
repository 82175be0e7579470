"""Pretrained initial weights: those of torchvision, or a safetensors file."""

from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from alfamix_core.errors import InputError, SampleError, StorageError
from alfamix_core.learning import efficientnet_lite
from alfamix_core.learning.backbones import OWN
from alfamix_core.learning.batches import Reader
from alfamix_core.learning.images import channels
from alfamix_core.learning.network import Network
from alfamix_core.learning.pixels import HALF, imagenet
from alfamix_core.records.model import CARD_FILE, ModelCard, PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings


def apply_initial_weights(network: Network, model: ModelSettings, image: ImageSettings, reader: Reader | None) -> None:
    """Load the weights that ``model.weights`` names into a network; ``none`` leaves it unchanged.

    The file of a URI holds all tensors of the encoder, under the names of an alfamix model folder (``encoder.…``) or
    of the torchvision model itself. A head is loaded if it fits; otherwise the network's own stays. torchvision's
    weights are fetched from its server into torch's cache folder, and read without unpickling. If the settings leave
    the normalisation of the pixels open, it becomes that with which the weights were trained: model.json beside an
    alfamix model says it, and for other files it is ImageNet's, or 0.5 and 0.5 for efficientnet_lite0.

    Args:
        network: Network with the backbone that ``model`` names; changed in place.
        model: Settings of the model: its backbone and weights.
        image: Settings of the model's input.
        reader: Reader of the URI; None if ``model.weights`` is not a URI.

    Raises:
        InputError: The backbone has no such weights, or they do not fit.
        StorageError: Torchvision's server cannot be reached.
    """
    if model.weights == "none":
        return
    if "://" in model.weights:
        assert reader is not None, "a URI needs a reader"
        tensors, pixels = _from_file(reader, model.weights)
    elif model.backbone in (*OWN, efficientnet_lite.NAME):
        raise InputError(
            f'model.weights "{model.weights}" is not possible for {model.backbone}, which has no weights to download: '
            "use none or the URI of a safetensors file"
        )
    else:
        tensors, pixels = _from_torchvision(model)
    _apply(network, tensors, model)
    if image.normalisation == "auto":
        usual = imagenet(channels(image) if model.backbone in OWN else 3)
        network.pixels = pixels or (HALF if model.backbone == efficientnet_lite.NAME else usual)


def _from_file(reader: Reader, uri: str) -> tuple[dict[str, Tensor], PixelStatistics | None]:
    try:
        tensors = load(reader.read(uri))
    except SafetensorError as error:
        raise InputError(f"model.weights {uri} is not a safetensors file ({error})") from None
    encoder = {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
    head = {name: value for name, value in tensors.items() if name in ("head.weight", "head.bias")}
    if not encoder:
        return tensors, None
    card_uri = f"{uri.rpartition('/')[0]}/{CARD_FILE}"
    try:
        pixels = ModelCard.parse(reader.read(card_uri), card_uri).pixels
    except SampleError:
        # the file was copied without its model.json
        pixels = None
    return {**encoder, **head}, pixels


def _from_torchvision(model: ModelSettings) -> tuple[dict[str, Tensor], PixelStatistics]:
    import torchvision

    available = torchvision.models.get_model_weights(model.backbone)
    names = [member.name for member in available]
    if model.weights == "default":
        weights = available.DEFAULT
    elif model.weights in names:
        weights = available[model.weights]
    else:
        raise InputError(
            f'model.weights "{model.weights}" is unknown for {model.backbone}: use none, default, '
            f"{', '.join(names)}, or the URI of a safetensors file"
        )
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except URLError as error:
        raise StorageError(f"model.weights {model.weights} cannot be fetched from {weights.url} ({error})") from error
    preset = weights.transforms()
    return state, PixelStatistics(mean=tuple(preset.mean), std=tuple(preset.std))


def _apply(network: Network, tensors: dict[str, Tensor], model: ModelSettings) -> None:
    encoder = network.encoder.state_dict()
    missing = [name for name in encoder if name not in tensors]
    if missing:
        raise InputError(
            f"model.weights {model.weights} lacks {len(missing)} of the {len(encoder)} tensors of {model.backbone}, "
            f'such as "{missing[0]}"'
        )
    for name, value in encoder.items():
        if tensors[name].shape != value.shape:
            raise InputError(
                f'model.weights {model.weights}: tensor "{name}" must have shape {list(value.shape)} for '
                f"{model.backbone} and this image.size, not {list(tensors[name].shape)}"
            )
    network.encoder.load_state_dict({name: tensors[name] for name in encoder})
    head = network.head.state_dict()
    pretrained = {name: tensors.get(f"head.{name}", torch.empty(0)) for name in head}
    if all(pretrained[name].shape == head[name].shape for name in head):
        network.head.load_state_dict(pretrained)
