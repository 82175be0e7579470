import pytest
import torch
from safetensors.torch import save_file

from alfamix_core.errors import InputError
from alfamix_core.learning import model_folder
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.network import Network
from alfamix_core.learning.pixels import IMAGENET
from alfamix_core.learning.weights import apply_initial_weights
from alfamix_core.records.model import CARD_FILE, WEIGHTS_FILE, ModelCard, PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings
from alfamix_core.storage import SampleReader

IMAGE = ImageSettings(size=32, channels="colour")


def network(model: ModelSettings, classes: int = 3, seed: int = 0, image: ImageSettings = IMAGE) -> Network:
    made = initial(model, image, classes, seed)
    apply_initial_weights(made, model, image, SampleReader(2**30))
    return made


def encoder_and_head(model: Network) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([value.flatten().float() for value in model.encoder.state_dict().values()]), model.head.weight


@pytest.mark.parametrize("classes", [3, 4])
def test_a_saved_model_gives_its_encoder_and_where_it_fits_its_head(tmp_path, classes):
    source = network(ModelSettings(backbone="mlp"), seed=1)
    card = ModelCard(
        classes=("a", "b", "c"),
        model=ModelSettings(backbone="mlp"),
        image=IMAGE,
        embedding_size=256,
        round=1,
        trained=True,
    )
    model_folder.save(tmp_path, source, card)
    uri = f"file://{tmp_path / WEIGHTS_FILE}"
    made = network(ModelSettings(backbone="mlp", weights=uri), classes)
    fresh = network(ModelSettings(backbone="mlp"), classes)
    assert torch.equal(encoder_and_head(made)[0], encoder_and_head(source)[0])
    assert torch.equal(made.head.weight, source.head.weight if classes == 3 else fresh.head.weight)


def test_torchvisions_own_names_are_understood(tmp_path):
    """A state of the whole torchvision model, 1000 classes and all."""
    import torchvision

    with torch.random.fork_rng():
        state = torchvision.models.mobilenet_v3_small().state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    made = network(ModelSettings(backbone="mobilenet_v3_small", weights=f"file://{tmp_path}/weights.safetensors"))
    assert torch.equal(made.encoder.state_dict()["features.0.0.weight"], state["features.0.0.weight"])
    assert made.head.out_features == 3


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    uri = f"file://{tmp_path}/w.safetensors"
    with pytest.raises(InputError, match=r'lacks 2 of the 2 tensors of mlp, such as "1.weight"$'):
        network(ModelSettings(backbone="mlp", weights=uri))


def test_weights_for_another_image_size_are_refused(tmp_path):
    small = network(ModelSettings(backbone="mlp"), image=ImageSettings(size=8, channels="colour"))
    save_file(small.encoder.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r'tensor "1.weight" must have shape \[256, 3072\] .* not \[256, 192\]$'):
        network(ModelSettings(backbone="mlp", weights=f"file://{tmp_path}/w.safetensors"))


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(InputError, match="is not a safetensors file"):
        network(ModelSettings(backbone="mlp", weights=f"file://{tmp_path}/w.safetensors"))


@pytest.mark.parametrize("weights", ["default", "IMAGENET1K_V1"])
@pytest.mark.parametrize("backbone", ["small_cnn", "efficientnet_lite0"])
def test_our_own_backbones_have_no_weights_to_download(backbone, weights):
    with pytest.raises(InputError, match="which has no weights to download: use none or the URI"):
        network(ModelSettings(backbone=backbone, weights=weights))


def test_an_unknown_torchvision_weights_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"use none, default, IMAGENET1K_V1, or the URI of a safetensors file$"):
        network(ModelSettings(backbone="resnet18", weights="IMAGENET"))


def test_pixels_are_normalised_as_the_weights_were_trained_unless_the_settings_say_otherwise(tmp_path):
    """Files that are not alfamix's, or that have lost their model.json, are taken as trained on ImageNet."""
    source = network(ModelSettings(backbone="mlp"), seed=1)
    source.pixels = PixelStatistics(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    card = ModelCard(
        classes=("a", "b", "c"),
        model=ModelSettings(backbone="mlp"),
        image=IMAGE,
        embedding_size=256,
        round=1,
        trained=True,
    )
    model_folder.save(tmp_path, source, card)
    weights = ModelSettings(backbone="mlp", weights=f"file://{tmp_path / WEIGHTS_FILE}")
    assert network(weights).pixels == source.pixels
    half = IMAGE.model_copy(update={"normalisation": "half"})
    assert network(weights, image=half).pixels == PixelStatistics(mean=(0.5,), std=(0.5,))
    (tmp_path / CARD_FILE).unlink()
    assert network(weights).pixels == IMAGENET
    (tmp_path / CARD_FILE).write_text("{")
    with pytest.raises(InputError, match=r"model\.json: is not JSON"):
        network(weights)
