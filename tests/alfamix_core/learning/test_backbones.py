import subprocess
import sys

import pytest
import torch
from torch import nn

from alfamix_core.errors import InputError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.network import Network
from alfamix_core.records.project import ImageSettings, ModelSettings


def network(backbone: str, size: int = 8, channels: str = "grey", classes: int = 3, seed: int = 0) -> Network:
    return initial(ModelSettings(backbone=backbone), ImageSettings(size=size, channels=channels), classes, seed)


def random_images(count: int, channels: int, size: int) -> torch.Tensor:
    return torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("channels", ["grey", "colour"])
@pytest.mark.parametrize("size", [8, 13, 28, 64])
@pytest.mark.parametrize("backbone", ["small_cnn", "mlp"])
def test_our_own_backbones_take_any_size_and_colour(backbone, size, channels):
    model = network(backbone, size, channels)
    images = random_images(5, 3 if channels == "colour" else 1, size)
    assert model.embed(images).shape == (5, model.embedding_size)
    assert model(images).shape == (5, 3)


def test_the_mlp_has_one_hidden_layer_of_256_as_in_the_paper():
    layers = [layer for layer in network("mlp", 28).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(784, 256), (256, 3)]


@pytest.mark.parametrize(
    ("backbone", "size", "embedding"),
    [
        ("resnet18", 32, 512),
        ("mobilenet_v3_small", 32, 1024),
        ("efficientnet_b0", 32, 1280),
        ("shufflenet_v2_x0_5", 32, 1024),
        ("densenet121", 32, 1024),
        ("mnasnet0_5", 32, 1280),
        ("regnet_y_400mf", 32, 440),
        ("googlenet", 32, 1024),
        pytest.param("swin_t", 32, 768, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 32, 768, marks=pytest.mark.slow),
        pytest.param("vit_b_16", 32, 768, marks=pytest.mark.slow),
        pytest.param("alexnet", 64, 4096, marks=pytest.mark.slow),
        pytest.param("inception_v3", 80, 2048, marks=pytest.mark.slow),
        pytest.param("maxvit_t", 224, 512, marks=pytest.mark.slow),
    ],
)
def test_a_torchvision_model_is_split_before_its_last_layer(backbone, size, embedding):
    """Grey images, which become three channels; training mode returns one tensor, too."""
    model = network(backbone, size, classes=7)
    images = random_images(2, 1, size)
    assert (model.embedding_size, model.head.out_features) == (embedding, 7)
    with torch.no_grad():
        embeddings = model.embed(images)
        assert embeddings.shape == (2, embedding)
        assert torch.equal(model(images), model.head(embeddings))
        assert model.train()(images).shape == (2, 7)


def test_grey_and_equal_channels_are_the_same_to_a_torchvision_model():
    model = network("resnet18", 32)
    grey = random_images(2, 1, 32)
    with torch.no_grad():
        assert torch.equal(model.embed(grey), model.embed(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("backbone", ["small_cnn", "mlp", "mobilenet_v3_small"])
def test_initial_weights_come_from_the_seed_alone(backbone):
    torch.rand(3)
    before = torch.get_rng_state()
    first = network(backbone, 32, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = network(backbone, 32, seed=5).state_dict(), network(backbone, 32, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert any(not torch.equal(first[name], other[name]) for name in first if name.startswith("encoder."))


def test_an_unknown_backbone_is_answered_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        network("resnet81")
    line = str(caught.value)
    assert line.startswith(
        'model.backbone "resnet81" is unknown: use small_cnn, mlp, efficientnet_lite0, or a torchvision'
    )
    assert "did you mean resnet18" in line
    with pytest.raises(InputError, match="did you mean small_cnn"):
        network("smallcnn")


def test_a_detection_model_is_not_a_classification_model():
    with pytest.raises(InputError, match="is unknown"):
        network("fasterrcnn_resnet50_fpn")


def test_a_model_that_cannot_take_the_size_says_so():
    with pytest.raises(InputError, match=r"model.backbone vit_b_16 cannot take images of image.size = 20 pixels"):
        network("vit_b_16", 20)
    with pytest.raises(InputError, match=r"model.backbone vgg11 cannot take images of image.size = 8 pixels"):
        network("vgg11", 8)


def test_a_model_without_a_linear_head_is_refused():
    with pytest.raises(InputError, match="squeezenet1_1 does not end in a linear layer"):
        network("squeezenet1_1", 64)


def test_our_own_backbones_need_neither_torchvision_nor_the_compiler_except_to_train():
    """Each costs a second, in every stage of every round; torch.optim imports the compiler, in `train` alone."""
    program = """
import sys, torch
from alfamix_core.learning import batches, device, embedding, images, model_folder, training, weights
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.optimiser import Optimiser
from alfamix_core.records.project import ImageSettings, ModelSettings, TrainingSettings
network = initial(ModelSettings(backbone="small_cnn"), ImageSettings(size=8), 3, 0)
network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).sum().backward()
device.choose()
print([name for name in ("torchvision", "torch._dynamo", "sklearn", "pyarrow") if name in sys.modules])
for name in ("adam", "adamw", "sgd"):
    Optimiser(network.parameters(), TrainingSettings(optimiser=name), 1).step()
print([name for name in ("torchvision", "sklearn", "pyarrow") if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["[]", "[]"]
