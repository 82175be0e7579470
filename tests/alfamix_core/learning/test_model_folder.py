import json

import pytest
import torch

from alfamix_core.errors import InputError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.model_folder import load, load_grown, load_head, save
from alfamix_core.records.model import CARD_FILE, WEIGHTS_FILE, ModelCard, PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings, Project


def project(backbone="mlp", size=8, channels="grey", classes=("cat", "dog")) -> Project:
    return Project(
        name="pets",
        classes=classes,
        model=ModelSettings(backbone=backbone),
        image=ImageSettings(size=size, channels=channels),
    )


def saved(folder, settings: Project):
    network = initial(settings.model, settings.image, len(settings.classes), seed=3)
    card = ModelCard(
        classes=settings.classes,
        model=settings.model,
        image=settings.image,
        embedding_size=network.embedding_size,
        round=4,
        trained=True,
        epochs=7,
    )
    network.pixels = PixelStatistics(mean=(0.25,), std=(0.75,))
    save(folder, network, card)
    return network, card.model_copy(update={"pixels": network.pixels})


@pytest.mark.parametrize("backbone", ["mlp", "small_cnn", "resnet18", "mobilenet_v3_small"])
def test_what_is_saved_comes_back_to_the_bit(tmp_path, backbone):
    settings = project(backbone, size=32)
    network, card = saved(tmp_path, settings)
    loaded, card_again = load(tmp_path, settings)
    assert card_again == card
    assert not loaded.training
    assert list(loaded.state_dict()) == list(network.state_dict())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
    images = torch.randint(256, (4, 1, 32, 32)).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["swin_t", "vit_b_32", "convnext_tiny", "efficientnet_b0"])
def test_larger_models_come_back_too(tmp_path, backbone):
    test_what_is_saved_comes_back_to_the_bit(tmp_path, backbone)


def test_loading_leaves_nothing_on_the_meta_device_and_can_be_trained(tmp_path):
    settings = project("small_cnn")
    saved(tmp_path, settings)
    loaded, _ = load(tmp_path, settings)
    loaded(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_equal_models_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name, project())
    for file in (CARD_FILE, WEIGHTS_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_head_alone_is_that_of_the_model(tmp_path):
    network, _ = saved(tmp_path, project())
    head = load_head(tmp_path, project())
    assert torch.equal(head.weight_KD, network.head.weight)
    assert torch.equal(head.bias_K, network.head.bias)


@pytest.mark.parametrize("read", [load, load_head])
@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"backbone": "small_cnn"}, "model.backbone must be the project's (small_cnn), not mlp"),
        ({"size": 16}, "image.size must be the project's (16), not 8"),
        ({"channels": "colour"}, "image.channels must be the project's (colour), not grey"),
        ({"classes": ("dog", "cat")}, "classes must be the project's (dog, cat), not cat, dog"),
        ({"classes": ("cat", "dog", "cow")}, "classes must be the project's (cat, dog, cow), not cat, dog"),
    ],
)
def test_a_model_of_another_project_is_refused_in_one_line(tmp_path, read, other, line):
    saved(tmp_path, project())
    with pytest.raises(InputError) as caught:
        read(tmp_path, project(**other))
    assert str(caught.value) == f"model folder {tmp_path}: {line}"


def test_other_weights_settings_do_not_make_another_model(tmp_path):
    saved(tmp_path, project())
    settings = project().model_copy(update={"model": ModelSettings(backbone="mlp", embedding_dtype="float32")})
    load(tmp_path, settings)


@pytest.mark.parametrize("read", [load, load_head])
def test_a_damaged_folder_is_refused(tmp_path, read):
    with pytest.raises(InputError, match=r"there is no model.json$"):
        read(tmp_path, project())
    saved(tmp_path, project())
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"model.safetensors is damaged"):
        read(tmp_path, project())
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(InputError, match=r"model.safetensors is damaged"):
        read(tmp_path, project())


def test_weights_of_another_backbone_under_this_card_are_refused(tmp_path):
    saved(tmp_path, project("small_cnn"))
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    saved(tmp_path, project("mlp"))
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    with pytest.raises(InputError, match=r"model.safetensors is damaged or does not fit model.json"):
        load(tmp_path, project("mlp"))


def test_a_model_grows_with_classes_that_were_added_and_keeps_what_it_knows(tmp_path):
    network, _ = saved(tmp_path, project(classes=("cat", "dog")))
    grown = load_grown(tmp_path, project(classes=("cat", "dog", "owl")), seed=1)
    assert grown.head.out_features == 3
    assert torch.equal(grown.head.weight[:2], network.head.weight)
    assert torch.equal(grown.head.bias[:2], network.head.bias)
    images = torch.randint(256, (4, 1, 8, 8)).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(grown.embed(images), network.embed(images))


def test_a_model_whose_classes_are_not_the_first_of_the_projects_is_refused(tmp_path):
    saved(tmp_path, project(classes=("cat", "dog")))
    with pytest.raises(InputError, match="classes must be the project's"):
        load_grown(tmp_path, project(classes=("cat", "owl", "dog")), seed=1)


def test_the_normalisation_of_the_pixels_is_that_of_model_json(tmp_path):
    settings = project()
    network, _ = saved(tmp_path, settings)
    other = settings.model_copy(update={"image": ImageSettings(size=8, channels="grey", normalisation="imagenet")})
    assert load(tmp_path, other)[0].pixels == network.pixels
    grown = load_grown(tmp_path, project(classes=("cat", "dog", "newt")), 0)
    assert grown.pixels == network.pixels


@pytest.mark.parametrize(("channels", "mean"), [("grey", (0.449,)), ("colour", (0.485, 0.456, 0.406))])
def test_a_model_from_before_model_json_had_a_normalisation_has_imagenets(tmp_path, channels, mean):
    settings = project(channels=channels)
    _, card = saved(tmp_path, settings)
    older = card.model_dump(mode="json")
    del older["pixels"]
    (tmp_path / CARD_FILE).write_text(json.dumps(older))
    assert load(tmp_path, settings)[0].pixels.mean == mean
