import pytest
import torch
from torch import nn

from alfamix_core.acquisition import noise
from alfamix_core.errors import InputError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.dropout_passes import dropout_passes
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.network import Network
from alfamix_core.learning.pixels import imagenet
from alfamix_core.records.project import ImageSettings, ModelSettings

CPU = torch.device("cpu")


def small(*layers, size=16):
    """A network of 16 pixels whose encoder has the layers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Network(nn.Sequential(*layers), size, 3, pixels=imagenet(1), repeat_grey=False).eval()


def images(n=6, seed=0):
    return torch.randint(256, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_pass_has_one_mask_for_all_samples_by_hand():
    network = small(nn.Flatten(), nn.Dropout(0.25))
    found = dropout_passes(network, images(), passes=2, seed=5)
    for number in range(2):
        key = noise.fold(5, noise.DROPOUT_MASKS, number, 0)
        kept = torch.rand(16, generator=torch.Generator().manual_seed(key >> 1)) >= 0.25
        expected = network.head(network.embed(images()) * kept / 0.75)
        torch.testing.assert_close(found[:, number], expected)


def test_passes_and_layers_have_masks_of_their_own():
    network = small(nn.Flatten(), nn.Dropout(0.5), nn.Dropout(0.5))
    seen = []
    for layer in list(network.encoder)[1:]:
        layer.register_forward_hook(lambda layer, inputs, values: seen.append(inputs[0][0] != 0))
    found = dropout_passes(network, images() | 1, passes=2, seed=0)
    assert not torch.equal(found[:, 0], found[:, 1])
    assert not torch.equal(dropout_passes(network, images() | 1, passes=2, seed=1), found)
    assert torch.equal(dropout_passes(network, images() | 1, passes=2, seed=0), found)
    assert torch.equal(dropout_passes(network, images() | 1, passes=5, seed=0)[:, :2], found)


def test_dropout_of_channels_drops_whole_channels():
    network = small(nn.Conv2d(1, 4, 1), nn.Dropout2d(0.5), nn.AvgPool2d(2), nn.Flatten())
    seen = []
    network.encoder[2].register_forward_hook(lambda layer, inputs, values: seen.append(inputs[0]))
    dropout_passes(network, images(), passes=8, seed=0)
    dropped = torch.stack([(maps == 0).all(dim=(0, 2, 3)) for maps in seen])
    part = torch.stack([(maps == 0).any(dim=(0, 2, 3)) for maps in seen])
    assert torch.equal(dropped, part)
    assert 4 < dropped.sum() < 28


def test_batch_normalisation_stays_as_it_is():
    """The released code puts the whole model into training mode."""
    network = small(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = torch.cat([dropout_passes(network, row[None], passes=3, seed=0) for row in images()])
    torch.testing.assert_close(dropout_passes(network, images(), passes=3, seed=0), alone)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.training
    assert not any(module.training for module in network.modules())


def test_afterwards_the_network_is_as_before_and_no_global_state_is_touched():
    network = small(nn.Flatten(), nn.Dropout(0.5))
    state, before = torch.random.get_rng_state(), network(images())
    dropout_passes(network, images(), passes=3, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(network(images()), before)


def test_dropout_of_everything_gives_the_bias():
    network = small(nn.Flatten(), nn.Dropout(1.0))
    found = dropout_passes(network, images(), passes=1, seed=0)
    torch.testing.assert_close(found[:, 0], network.head.bias.expand(6, 3))


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(0.0)])
def test_a_model_without_dropout_is_refused(layer):
    with pytest.raises(InputError, match=r"this one has none: set model\.dropout"):
        dropout_passes(small(nn.Flatten(), layer), images(), passes=3, seed=0)


def test_no_pass_is_refused():
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        dropout_passes(small(nn.Flatten(), nn.Dropout(0.5)), images(), passes=0, seed=0)


def columns(model, pool, **options):
    blocks = list(embed(model, pool, batch_size=32, dtype="float32", device=CPU, **options))
    return {name: torch.cat([block.columns()[name] for block in blocks]) for name in blocks[0].columns()}


def test_embed_computes_what_is_asked_for_and_nothing_else(digits):
    model = initial(ModelSettings(backbone="mlp"), ImageSettings(size=8, channels="grey"), 10, seed=0)
    assert set(columns(model, digits.images(range(3)))) == {"embeddings", "logits"}
    with pytest.raises(InputError, match="need a model with a dropout layer"):
        columns(model, digits.images(range(3)), columns={"mc_logits"}, parameters={"passes": 2})


def test_any_cut_of_the_pool_leaves_every_bit_of_the_passes(digits):
    model = small(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.5), size=48)
    options = {"columns": {"mc_logits"}, "seed": 3, "parameters": {"passes": 4}}
    whole = columns(model, digits.images(range(90)), **options)["mc_logits"]
    assert whole.shape == (90, 4, 3)
    for part in (range(37), range(37, 90)):
        assert torch.equal(columns(model, digits.images(part), **options)["mc_logits"], whole[list(part)])


@pytest.mark.parametrize(("backbone", "size"), [("mlp", 8), ("mlp", 13), ("small_cnn", 8)])
def test_any_cut_of_the_pool_leaves_every_bit_of_the_deepfool_norms(digits, backbone, size):
    model = initial(ModelSettings(backbone=backbone), ImageSettings(size=size, channels="grey"), 10, seed=0)
    options = {"columns": {"deepfool"}, "parameters": {"classes": 4}}
    whole = columns(model, digits.images(range(90), size), **options)["deepfool"]
    assert (whole > 0).all()
    for part in (range(37), range(37, 90)):
        assert torch.equal(columns(model, digits.images(part, size), **options)["deepfool"], whole[list(part)])
