"""The normalisation of the pixels, from the training images to every stage that reads the model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from alfamix_core.learning import model_folder
from alfamix_core.learning.backbones import initial
from alfamix_core.project import layout
from alfamix_core.project.initialise import initialise
from alfamix_core.records.features import read_all
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import ImageSettings, ModelSettings, Project, TrainingSettings
from alfamix_core.records.snapshot import read_round
from alfamix_core.storage import open_store
from components.ingest import stage as ingest
from components.snapshot import stage as snapshot
from components.train import stage as train


@pytest.fixture
def trained(tmp_path):
    """Return a function that trains a project's first model on six images, and returns model.json and the images."""
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)

    def run(labels=("cat", "dog") * 3, model=None, **image):
        store = open_store((tmp_path / "project").as_uri())
        settings = Project(
            name="pets",
            classes=("cat", "dog"),
            image=ImageSettings(size=8, **image),
            model=ModelSettings(backbone="mlp", **(model or {})),
            training=TrainingSettings(max_epochs=2),
            data_prefixes=(tmp_path.as_uri(),),
        )
        initialise(store, settings)
        lines = []
        for number, pixels in enumerate(pictures):
            path = tmp_path / f"{number}.png"
            Image.fromarray(pixels).save(path)
            # the last two are the pool
            label = labels[number] if number < len(labels) else None
            lines.append(ManifestLine(uri=path.as_uri(), id=f"s{number}", label=label))
        store.create(layout.manifest("a"), b"".join(line.json_line() for line in lines))
        paths = {name: str(tmp_path / name) for name in ("snapshot", "champion", "model", "labelled")}
        key = ingest.run(store.uri, Holder(run_id="run"), force=True)
        snapshot.run(store.uri, key, paths["snapshot"], paths["champion"])
        train.run(paths["snapshot"], paths["champion"], paths["model"], paths["labelled"], store.uri)
        card = json.loads((tmp_path / "model" / "model.json").read_text())
        network, _ = model_folder.load(tmp_path / "model", read_round(tmp_path / "snapshot").settings)
        assert network.pixels.model_dump(mode="json") == card["pixels"], "every reader has the numbers of model.json"
        return card, pictures[: len(labels)]

    return run


@pytest.mark.parametrize("normalisation", ["auto", "data"])
def test_a_model_from_random_weights_sees_pixels_normalised_by_its_training_images(trained, normalisation):
    card, images = trained(normalisation=normalisation)
    assert card["trained"]
    channels = (images / 255).reshape(-1, 3)
    assert card["pixels"]["mean"] == pytest.approx(channels.mean(axis=0), abs=1e-6)
    assert card["pixels"]["std"] == pytest.approx(channels.std(axis=0), abs=1e-6)


def test_an_untrained_model_sees_them_so_too(trained):
    """One class alone cannot be trained, but the cold start compares the embeddings of the initial model."""
    card, images = trained(labels=("cat", "cat"))
    assert not card["trained"]
    assert card["pixels"]["mean"] == pytest.approx((images / 255).reshape(-1, 3).mean(axis=0), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        ({"normalisation": "imagenet"}, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ({"normalisation": "half"}, {"mean": [0.5], "std": [0.5]}),
        (
            {"normalisation": "numbers", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
            {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        ),
    ],
)
def test_numbers_that_the_settings_name_are_those_of_the_model(trained, image, pixels):
    assert trained(**image)[0]["pixels"] == pixels


def loaded(tmp_path):
    settings = read_round(tmp_path / "snapshot").settings
    return model_folder.load(tmp_path / "model", settings)[0], settings


@pytest.mark.parametrize("features", ["l2", "standardised", "raw"])
def test_training_never_changes_a_frozen_encoder_and_fits_the_head_to_its_scaled_output(trained, tmp_path, features):
    card, _ = trained(model={"encoder": "frozen", "features": features, "head_penalty": 0.01})
    network, settings = loaded(tmp_path)
    start = initial(settings.model, settings.image, 2, settings.seed)
    for name, value in start.encoder.state_dict().items():
        assert torch.equal(value, network.encoder.state_dict()[name])
    assert card["trained"]
    assert card["stopped_because"].startswith("the head converged within")
    assert (card["features"] or {"kind": "raw"})["kind"] == features
    rows = read_all(tmp_path / "labelled")
    embeddings, logits = rows["embeddings"].float(), rows["logits"]
    assert torch.equal(logits.argmax(dim=1), rows["labels"]), "six images in 256 dimensions are separable"
    assert torch.allclose(network.head(embeddings), logits), "what strategies see is what the head is applied to"
    if features == "l2":
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(6), atol=1e-3)
    if features == "standardised":
        assert torch.allclose(embeddings.mean(dim=0), torch.zeros(256), atol=1e-3)


def test_the_pixels_of_a_frozen_encoder_do_not_follow_the_training_images(trained):
    """Otherwise its features would change with every label."""
    assert trained(model={"encoder": "frozen"})[0]["pixels"] == {"mean": [0.5], "std": [0.5]}


def test_a_frozen_encoder_without_two_classes_keeps_its_initial_head(trained, tmp_path):
    card, _ = trained(labels=("cat", "cat"), model={"encoder": "frozen"})
    network, settings = loaded(tmp_path)
    start = initial(settings.model, settings.image, 2, settings.seed)
    assert not card["trained"]
    assert torch.equal(network.head.weight, start.head.weight)
