"""The classification models of torchvision without their last linear layer."""

import difflib

import torch
import torchvision
from torch import nn

from alfamix_core.errors import InputError, one_line


def encoder_of(backbone: str, size: int) -> tuple[nn.Module, int]:
    """Return a model without its last linear layer, and the size of its output.

    Args:
        backbone: Name of a torchvision classification model.
        size: Side of the square input, in pixels.

    Returns:
        The encoder, from (n, 3, size, size) to (n, D), with weights drawn from the global random state; and D.

    Raises:
        InputError: Torchvision has no such model, it does not end in a linear layer, or it cannot take such images.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if backbone not in known:
        raise InputError(_unknown(backbone, known))
    try:
        encoder = torchvision.models.get_model(backbone, weights=None, **_keywords(backbone, size)).eval()
        path, last = list(encoder.named_modules())[-1]
        if not isinstance(last, nn.Linear):
            raise InputError(f"model.backbone {backbone} does not end in a linear layer, which alfamix needs")
        encoder.set_submodule(path, nn.Identity())
        with torch.inference_mode():
            encoder(torch.zeros(1, 3, size, size, device=last.weight.device))
    except (RuntimeError, ValueError, AssertionError) as error:
        # torch and torchvision raise any of the three for a wrong size
        reason = one_line(error)
        raise InputError(
            f"model.backbone {backbone} cannot take images of image.size = {size} pixels ({reason})"
        ) from error
    return encoder, last.in_features


def _keywords(backbone: str, size: int) -> dict[str, object]:
    if backbone.startswith("vit_"):
        return {"image_size": size}
    if backbone.startswith("maxvit"):
        return {"input_size": (size, size)}
    if backbone in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _unknown(backbone: str, known: list[str]) -> str:
    line = (
        f'model.backbone "{backbone}" is unknown: use small_cnn, mlp, efficientnet_lite0, or a torchvision '
        "classification model such as resnet18, efficientnet_b0, mobilenet_v3_small, convnext_tiny, vit_b_16 or swin_t"
    )
    close = difflib.get_close_matches(backbone, ["small_cnn", "mlp", "efficientnet_lite0", *known], n=3)
    return f"{line} (did you mean {' or '.join(close)}?)" if close else line
