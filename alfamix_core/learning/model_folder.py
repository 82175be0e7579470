"""The model folder, written and read: model.json says what model.safetensors belongs to."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from alfamix_core.acquisition.types import LinearHead
from alfamix_core.errors import InputError
from alfamix_core.learning.backbones import initial, skeleton
from alfamix_core.learning.network import Network
from alfamix_core.records.model import CARD_FILE, WEIGHTS_FILE, ModelCard
from alfamix_core.records.project import Project


def save(folder: Path, network: Network, card: ModelCard) -> None:
    """Write a model into a folder that exists; equal models give equal bytes."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(card.document())


def load(folder: Path, expected: Project) -> tuple[Network, ModelCard]:
    """Read a model, on the CPU and in evaluation mode.

    Args:
        folder: holds model.json and model.safetensors.
        expected: the project whose model it must be.

    Raises:
        InputError: the model has another backbone, other image settings or other classes, or the folder is damaged.
    """
    card = _card(folder, expected)
    with torch.device("meta"):
        network = skeleton(card.model, card.image, len(card.classes))
    try:
        network.load_state_dict(load_file(folder / WEIGHTS_FILE), assign=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(_damaged(folder, error)) from error
    return network.eval(), card


def load_grown(folder: Path, expected: Project, seed: int) -> Network:
    """Read a model that training is to go on with; classes that were added since get fresh rows in the head.

    Args:
        folder: holds model.json and model.safetensors.
        expected: the project; its classes begin with the model's.
        seed: of the fresh rows.

    Raises:
        InputError: as ``load``; the project's classes do not begin with the model's.
    """
    known = ModelCard.parse((folder / CARD_FILE).read_bytes(), CARD_FILE).classes
    if known == expected.classes or expected.classes[: len(known)] != known:
        return load(folder, expected)[0]
    network, card = load(folder, expected.model_copy(update={"classes": known}))
    grown = initial(card.model, card.image, len(expected.classes), seed)
    grown.encoder.load_state_dict(network.encoder.state_dict())
    with torch.no_grad():
        grown.head.weight[: len(known)] = network.head.weight
        grown.head.bias[: len(known)] = network.head.bias
    return grown


def load_head(folder: Path, expected: Project) -> LinearHead:
    """Read the head alone, which is all that acquisition needs of a model; cheap for any backbone.

    Raises:
        InputError: as ``load``.
    """
    _card(folder, expected)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            return LinearHead(weights.get_tensor("head.weight"), weights.get_tensor("head.bias"))
    except (OSError, SafetensorError) as error:
        raise InputError(_damaged(folder, error)) from error


def _card(folder: Path, expected: Project) -> ModelCard:
    """Return the model's card, if it is of the project's architecture and classes."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(f"model folder {folder}: there is no {CARD_FILE}")
    card = ModelCard.parse(path.read_bytes(), str(path))
    pairs = {
        "model.backbone": (card.model.backbone, expected.model.backbone),
        "image.size": (card.image.size, expected.image.size),
        "image.channels": (card.image.channels, expected.image.channels),
        "classes": (", ".join(card.classes), ", ".join(expected.classes)),
    }
    for field, (came, holds) in pairs.items():
        if came != holds:
            raise InputError(f"model folder {folder}: {field} must be the project's ({holds}), and is {came}")
    return card


def _damaged(folder: Path, error: Exception) -> str:
    return (
        f"model folder {folder}: {WEIGHTS_FILE} is damaged or not of its {CARD_FILE} ({' '.join(str(error).split())})"
    )
