"""Reading and writing of model folders: model.safetensors has the weights, and model.json describes them."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from alfamix_core.acquisition.types import LinearHead
from alfamix_core.errors import InputError, one_line
from alfamix_core.learning.backbones import OWN, initial, skeleton
from alfamix_core.learning.images import channels
from alfamix_core.learning.network import Network
from alfamix_core.learning.pixels import imagenet
from alfamix_core.records.model import CARD_FILE, WEIGHTS_FILE, ModelCard
from alfamix_core.records.project import Project


def save(folder: Path, network: Network, card: ModelCard) -> None:
    """Write a model into an existing folder; equal models give equal bytes.

    Args:
        folder: Existing folder.
        network: Network to write.
        card: Description of the network; the network brings the normalisation of pixels and the scaling of features.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(
        card.model_copy(update={"pixels": network.pixels, "features": network.features}).document()
    )


def load(folder: Path, expected: Project) -> tuple[Network, ModelCard]:
    """Read a model onto the CPU, in evaluation mode.

    Args:
        folder: Folder with model.json and model.safetensors.
        expected: Settings of the project that the model must fit.

    Raises:
        InputError: The model has another backbone, other image settings or other classes, or the folder is damaged.
    """
    card = _card(folder, expected)
    with torch.device("meta"):
        network = skeleton(card.model, card.image, len(card.classes))
    try:
        network.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(_damaged(folder, error)) from error
    network.pixels = card.pixels or imagenet(3 if card.model.backbone not in OWN else channels(card.image))
    network.features = card.features
    return network.eval(), card


def load_grown(folder: Path, expected: Project, seed: int) -> Network:
    """Read a model for further training; classes added since get new rows in the head.

    Args:
        folder: Folder with model.json and model.safetensors.
        expected: Settings of the project, whose classes begin with the model's.
        seed: Seed for the new rows.

    Raises:
        InputError: As for ``load``, or the project's classes do not begin with the model's.
    """
    known = read_card(folder).classes
    if known == expected.classes or expected.classes[: len(known)] != known:
        return load(folder, expected)[0]
    network, card = load(folder, expected.model_copy(update={"classes": known}))
    grown = initial(card.model, card.image, len(expected.classes), seed)
    grown.pixels, grown.features = network.pixels, network.features
    grown.encoder.load_state_dict(network.encoder.state_dict())
    with torch.no_grad():
        grown.head.weight[: len(known)] = network.head.weight
        grown.head.bias[: len(known)] = network.head.bias
    return grown


def load_head(folder: Path, expected: Project) -> LinearHead:
    """Read only the head, which is all that acquisition needs of a model; this is cheap for any backbone.

    Raises:
        InputError: As for ``load``.
    """
    _card(folder, expected)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            return LinearHead(weights.get_tensor("head.weight"), weights.get_tensor("head.bias"))
    except (OSError, SafetensorError) as error:
        raise InputError(_damaged(folder, error)) from error


def read_card(folder: Path) -> ModelCard:
    """Return the card of a model folder.

    Raises:
        InputError: The folder has no card, or it is damaged.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(f"model folder {folder}: there is no {CARD_FILE}")
    return ModelCard.parse(path.read_bytes(), str(path))


def _card(folder: Path, expected: Project) -> ModelCard:
    """Return the model's card, if it has the project's architecture and classes."""
    card = read_card(folder)
    pairs = {
        "model.backbone": (card.model.backbone, expected.model.backbone),
        "image.size": (card.image.size, expected.image.size),
        "image.channels": (card.image.channels, expected.image.channels),
        "classes": (", ".join(card.classes), ", ".join(expected.classes)),
    }
    for field, (actual, required) in pairs.items():
        if actual != required:
            raise InputError(f"model folder {folder}: {field} must be the project's ({required}), not {actual}")
    return card


def _damaged(folder: Path, error: Exception) -> str:
    reason = one_line(error)
    return f"model folder {folder}: {WEIGHTS_FILE} is damaged or does not fit {CARD_FILE} ({reason})"
