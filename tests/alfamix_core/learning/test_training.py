import pytest
import torch
from torch import nn

from alfamix_core.errors import InputError
from alfamix_core.evaluation.metrics import measure
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.network import Network
from alfamix_core.learning.training import Examples, FitResult, fit
from alfamix_core.records.project import ImageSettings, ModelSettings, TrainingSettings

CPU = torch.device("cpu")


def network(backbone="mlp", size=8, seed=0) -> Network:
    return initial(
        ModelSettings(backbone=backbone), ImageSettings(size=size, channels="grey", normalisation="imagenet"), 10, seed
    )


def trained(model, train, seed=0, val=None, progress=None, **settings) -> FitResult:
    told = {} if progress is None else {"progress": progress}
    return fit(model, train, TrainingSettings(**settings), seed=seed, device=CPU, val=val, **told)


def accuracy(model, examples: Examples) -> float:
    blocks = embed(model, examples.images, batch_size=128, dtype="float16", device=CPU)
    metrics = measure(torch.cat([block.logits_nK for block in blocks]), examples.labels_n)
    assert metrics is not None
    return metrics.accuracy


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("backbone", ["mlp", "small_cnn"])
def test_500_labels_teach_digits(digits, backbone):
    model = network(backbone)
    result = trained(model, digits.examples(range(500)))
    assert result.stopped_because.startswith("training accuracy 0.99")
    assert accuracy(model, digits.examples(range(1000, 1797))) > 0.93
    assert not model.training


@pytest.mark.parametrize("backbone", ["mlp", "small_cnn"])
@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
def test_the_same_seed_gives_the_same_weights_to_the_bit(digits, backbone, augmentation):
    models = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        model = network(backbone)
        trained(model, digits.examples(range(70)), seed=seed, max_epochs=2, stop="never", augmentation=augmentation)
        models.append(model)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_dropout_is_drawn_from_the_seed_and_the_global_state_is_left_alone(digits):
    models = []
    for _ in range(2):
        torch.rand(3)
        before = torch.get_rng_state()
        model = network()
        model.encoder.append(nn.Dropout(0.5))
        trained(model, digits.examples(range(70)), max_epochs=2, stop="never")
        assert torch.equal(torch.get_rng_state(), before)
        models.append(model)
    assert same(*models)


def test_images_from_disk_and_from_memory_train_the_same(digits):
    models = [network(), network()]
    for model, cache_bytes in zip(models, (0, 2**20), strict=True):
        examples = digits.examples(range(70), cache_bytes=cache_bytes)
        trained(model, examples, max_epochs=3, stop="never")
    assert same(*models)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_optimiser_and_schedule_learns(digits, name, schedule):
    rate = 0.02 if name == "sgd" else 1e-3
    settings = {"optimiser": name, "schedule": schedule, "learning_rate": rate, "max_epochs": 15, "weight_decay": 1e-4}
    result = trained(network(), digits.examples(range(200)), stop="never", **settings)
    assert result.epochs == len(result.losses) == len(result.accuracies) == 15
    assert result.accuracies[-1] > 0.9
    assert result.losses[-1] < result.losses[0] / 3
    assert result.stopped_because == "max_epochs = 15 are done"


def test_training_begins_with_the_weights_it_is_given(digits):
    model = network()
    first = trained(model, digits.examples(range(200)))
    again = trained(model, digits.examples(range(200)))
    assert again.epochs < first.epochs


def test_the_first_loss_of_equal_logits_is_the_logarithm_of_the_classes(digits):
    """One batch, judged before its step: ln 10, whatever the class weights."""
    for weights in ("none", "balanced"):
        model = network()
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        settings = {"max_epochs": 1, "batch_size": 64, "stop": "never", "class_weights": weights}
        assert trained(model, digits.examples(range(64)), **settings).losses[0] == pytest.approx(2.302585)


def test_balanced_class_weights_find_the_rare_class(digits):
    """Zeros and a few eights, one epoch: the rare class is predicted more often with weights."""
    rows = [row for row in range(1000) if digits.labels_n[row] == 3][:90]
    rows += [row for row in range(1000) if digits.labels_n[row] == 8][:6]
    found = {}
    for weights in ("none", "balanced"):
        model = network()
        examples = Examples(digits.images(rows), digits.labels_n[rows])
        trained(model, examples, max_epochs=4, stop="never", class_weights=weights)
        rare = [row for row in range(1000, 1797) if digits.labels_n[row] == 8]
        found[weights] = accuracy(model, Examples(digits.images(rare), digits.labels_n[rare]))
    assert found["balanced"] > found["none"] + 0.1


def test_progress_ends_with_all_done(digits):
    told = []
    trained(network(), digits.examples(range(100)), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (1, 100)
    assert told[-1][0] == told[-1][1] == len(told) - 1


def test_the_val_split_stops_training_and_its_best_epoch_is_kept(digits):
    model = network()
    val = digits.examples(range(1000, 1200))
    settings = {"stop": "val_accuracy", "patience": 3, "learning_rate": 0.01}
    result = trained(model, digits.examples(range(150)), val=val, **settings)
    best = max(result.val_accuracies)
    epoch = result.val_accuracies.index(best) + 1
    assert result.epochs == epoch + 3
    assert result.stopped_because == (
        f"val accuracy has not improved for 3 epochs; kept epoch {epoch} with val accuracy {best:.4f}"
    )
    again = network()
    trained(again, digits.examples(range(150)), max_epochs=epoch, stop="never", learning_rate=0.01)
    assert same(model, again)


def test_watching_an_empty_val_split_is_refused(digits):
    for val in (None, digits.examples(range(0))):
        with pytest.raises(InputError, match="no sample of the val split has a label"):
            trained(network(), digits.examples(range(20)), val=val, stop="val_accuracy")


def test_samples_that_cannot_be_read_are_left_out(digits, tmp_path, reader):
    (tmp_path / "bad.png").write_text("no image")
    uris = [*digits.uris[:30], str(tmp_path / "bad.png"), *digits.uris[31:60]]
    images = SampleImages(
        reader, [str(row) for row in range(60)], uris, ImageSettings(size=8, channels="grey"), max_pixels=100
    )
    model = network()
    result = trained(model, Examples(images, digits.labels_n[:60]), max_epochs=30, learning_rate=0.01)
    assert result.accuracies[-1] > 0.9
    assert [sample.sample_id for sample in images.quarantined()] == ["30"]


def test_when_no_sample_can_be_read_nothing_is_learned(tmp_path, reader):
    (tmp_path / "bad.png").write_text("no image")
    images = SampleImages(
        reader, ["a"], [str(tmp_path / "bad.png")], ImageSettings(size=8, channels="grey"), max_pixels=100
    )
    model = network()
    result = trained(model, Examples(images, torch.tensor([3])))
    assert result == FitResult(0, (), (), (), "no sample can be read")
    assert same(model, network())


def test_a_batch_of_one_sample_is_no_trouble_for_batch_normalisation(digits):
    """A resnet18 sees 8 x 8 pixels as one, so that each channel has one value a sample."""
    for rows, batch_size in ((1, 64), (5, 4), (3, 1)):
        model = network("resnet18")
        result = trained(model, digits.examples(range(rows)), max_epochs=2, stop="never", batch_size=batch_size)
        assert result.epochs == 2
        assert all(value.isfinite().all() for value in model.state_dict().values())


def test_after_a_short_training_batch_normalisation_knows_the_samples(digits):
    """With the running averages of three epochs, this model guesses: 10 %."""
    model = network("resnet18", 32)
    result = trained(model, digits.examples(range(100), size=32))
    assert result.epochs < 8
    assert accuracy(model, digits.examples(range(1000, 1300), size=32)) > 0.6


def test_statistics_of_batch_normalisation_are_those_of_the_training_samples(digits):
    """The first normalisation of a network that has not moved: the mean over the batches of the convolution."""
    model = network("resnet18", 32)
    start = model.encoder.conv1.weight.detach().clone()
    trained(model, digits.examples(range(32), size=32), max_epochs=1, stop="never", learning_rate=1e-30, batch_size=16)
    assert torch.allclose(model.encoder.conv1.weight, start, atol=1e-6)
    seen = []
    model.encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.mean(dim=(0, 2, 3))))
    list(embed(model, digits.images(range(32), 32), batch_size=32, dtype="float32", device=CPU))
    torch.testing.assert_close(model.encoder.bn1.running_mean, seen[0], atol=1e-5, rtol=1e-4)
    assert model.encoder.bn1.momentum == 0.1


def test_a_loss_that_is_not_finite_names_the_learning_rate(digits):
    with pytest.raises(InputError, match=r"^the training loss is (nan|inf) in epoch \d+: lower training.learning_rate"):
        trained(network(), digits.examples(range(100)), optimiser="sgd", learning_rate=1e30, stop="never")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_models_learn_digits_and_repeat_to_the_bit(digits, backbone):
    models = [network(backbone, 32), network(backbone, 32)]
    for model in models:
        trained(model, digits.examples(range(200), size=32), max_epochs=4)
    assert same(*models)
    assert accuracy(models[0], digits.examples(range(1000, 1300), size=32)) > 0.5


def test_dropout_before_the_head_is_at_work_in_training_and_not_afterwards(digits):
    models = []
    for share in (0.0, 0.5, 0.5):
        model = initial(ModelSettings(backbone="mlp", dropout=share), ImageSettings(size=8, channels="grey"), 10, 0)
        trained(model, digits.examples(range(70)), max_epochs=2, stop="never")
        models.append(model)
    assert not same(models[0], models[1])
    assert same(models[1], models[2])
    pixels = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    assert torch.equal(models[1](pixels), models[1].head(models[1].embed(pixels)))
