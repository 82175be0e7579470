"""Initial weights that come from elsewhere: torchvision's own, or a safetensors file."""

from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from alfamix_core.errors import InputError, StorageError
from alfamix_core.learning.backbones import OWN
from alfamix_core.learning.batches import Reader
from alfamix_core.learning.network import Network
from alfamix_core.records.project import ModelSettings


def apply_initial_weights(network: Network, model: ModelSettings, reader: Reader | None) -> None:
    """Put the weights that ``model.weights`` names into a network; ``none`` leaves it as it is.

    The file of a uri holds all tensors of the encoder, under the names of an alfamix model folder (``encoder.…``) or
    of the torchvision model itself. A head is taken if it fits, else it stays as it is. Weights of torchvision are
    fetched from its server and kept where torch keeps such files; they are read without unpickling.

    Args:
        network: of the backbone that ``model`` names; changed in place.
        model: backbone and weights.
        reader: what a uri is read with; not needed without one.

    Raises:
        InputError: there are no such weights for the backbone, or they do not fit.
        StorageError: torchvision's server cannot be reached.
    """
    if model.weights == "none":
        return
    if "://" in model.weights:
        assert reader is not None, "a uri needs a reader"
        tensors = _of_file(reader.read(model.weights), model.weights)
    elif model.backbone in OWN:
        raise InputError(
            f'model.weights "{model.weights}" is not possible for {model.backbone}, which has no pretrained weights: '
            "use none or the uri of a safetensors file"
        )
    else:
        tensors = _of_torchvision(model)
    _apply(network, tensors, model)


def _of_file(data: bytes, uri: str) -> dict[str, Tensor]:
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError(f"model.weights {uri} is not a safetensors file ({error})") from None
    prefixed = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    heads = {key: value for key, value in tensors.items() if key in ("head.weight", "head.bias")}
    return {**prefixed, **heads} if prefixed else tensors


def _of_torchvision(model: ModelSettings) -> dict[str, Tensor]:
    import torchvision

    known = torchvision.models.get_model_weights(model.backbone)
    names = [member.name for member in known]
    if model.weights == "default":
        weights = known.DEFAULT
    elif model.weights in names:
        weights = known[model.weights]
    else:
        raise InputError(
            f'model.weights "{model.weights}" is not known for {model.backbone}: use none, default, '
            f"{', '.join(names)}, or the uri of a safetensors file"
        )
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except URLError as error:
        raise StorageError(f"model.weights {model.weights} cannot be fetched from {weights.url} ({error})") from error
    return state


def _apply(network: Network, tensors: dict[str, Tensor], model: ModelSettings) -> None:
    wanted = network.encoder.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise InputError(
            f"model.weights {model.weights} lacks {len(missing)} of the {len(wanted)} tensors of {model.backbone}, "
            f'such as "{missing[0]}"'
        )
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise InputError(
                f'model.weights {model.weights}: tensor "{name}" must have shape {list(value.shape)} for '
                f"{model.backbone} and this image.size, not {list(tensors[name].shape)}"
            )
    network.encoder.load_state_dict({name: tensors[name] for name in wanted})
    head = network.head.state_dict()
    given = {name: tensors.get(f"head.{name}", torch.empty(0)) for name in head}
    if all(given[name].shape == head[name].shape for name in head):
        network.head.load_state_dict(given)
