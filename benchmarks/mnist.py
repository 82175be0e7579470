"""A campaign on MNIST with the multilayer perceptron of the paper: 100 labels, then ten rounds of 100.

    python -m benchmarks.mnist FOLDER [--strategy alfamix] [--seed 1] [--normalisation data]

FOLDER holds the four files of MNIST, such as train-images-idx3-ubyte. The campaign calls the library in one process and
one thread, and prints the mean accuracy over the eleven models, and that of the last one.
"""

import argparse
import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from alfamix_core.acquisition import policy, strategies
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.learning import pixels
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.network import Network
from alfamix_core.learning.training import Examples, fit
from alfamix_core.records.project import ImageSettings, ModelSettings, TrainingSettings

ROUNDS, BUDGET = 10, 100


class _Pixels:
    """The images of a split, read as PNG files whose URI is the row."""

    def __init__(self, folder: Path, name: str) -> None:
        images = bytearray((folder / f"{name}-images-idx3-ubyte").read_bytes())
        labels = bytearray((folder / f"{name}-labels-idx1-ubyte").read_bytes())
        self.images_nCSS = torch.frombuffer(images, dtype=torch.uint8, offset=16).reshape(-1, 1, 28, 28)
        self.labels_n = torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()

    def read(self, uri: str) -> bytes:
        """Return an image as a PNG file."""
        stream = io.BytesIO()
        Image.fromarray(self.images_nCSS[int(uri), 0].numpy()).save(stream, "PNG")
        return stream.getvalue()


def _embedded(network: Network, images_nCSS: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings, as a project stores them, and the logits."""
    with torch.inference_mode():
        embeddings_nD = torch.cat([network.embed(block) for block in images_nCSS.split(1024)]).half()
        return embeddings_nD, network.head(embeddings_nD.float())


def _trained(train: _Pixels, labelled_L: Tensor, image: ImageSettings, seed: int, number: int) -> Network:
    network = initial(ModelSettings(backbone="mlp"), image, 10, seed)
    names = [str(row) for row in labelled_L.tolist()]
    images = SampleImages(train, names, names, image, max_pixels=10_000, cache_bytes=1 << 30)
    if image.normalisation == "data":
        network.pixels = pixels.of_images(images)
    examples = Examples(images, train.labels_n[labelled_L])
    cpu = torch.device("cpu")
    fit(network, examples, TrainingSettings(), seed=1000 * seed + number, device=cpu)
    return network


def _queries(network: Network, train: _Pixels, labelled_L: Tensor, strategy_name: str, seed: int) -> Tensor:
    """Return the rows that the strategy asks about."""
    strategy, reach = strategies.load(strategy_name), policy.reach(BUDGET, sparse=False)
    is_pool_n = torch.ones(len(train.labels_n), dtype=torch.bool)
    is_pool_n[labelled_L] = False
    pool_n = is_pool_n.nonzero()[:, 0]
    labelled = Labelled(*_embedded(network, train.images_nCSS[labelled_L]), train.labels_n[labelled_L])
    head = LinearHead(network.head.weight.detach(), network.head.bias.detach())
    embeddings_nD, logits_nK = _embedded(network, train.images_nCSS[pool_n])
    state = strategy.prepare(labelled, head, seed)
    features = Features(pool_n, embeddings_nD=embeddings_nD, logits_nK=logits_nK)
    scores = score_shard(strategy, iter([features]), state, reach)
    choice = policy.choose(strategy, scores, state, BUDGET, torch.Generator().manual_seed(seed), reach=reach)
    return torch.tensor([query.position for query in choice.queries])


def main() -> None:
    """Run one campaign, and print its accuracies."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mnist", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strategy", default="alfamix")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--normalisation", choices=("data", "imagenet", "half"), default="data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = _Pixels(options.folder, "train"), _Pixels(options.folder, "t10k")
    image = ImageSettings(size=28, channels="grey", normalisation=options.normalisation)
    generator = torch.Generator().manual_seed(options.seed)
    labelled_L = torch.randperm(len(train.labels_n), generator=generator)[:BUDGET]
    accuracies = []
    for number in range(ROUNDS + 1):
        network = _trained(train, labelled_L, image, options.seed, number)
        predicted_n = _embedded(network, test.images_nCSS)[1].argmax(dim=1)
        accuracies.append(float((predicted_n == test.labels_n).double().mean()))
        if number < ROUNDS:
            asked_n = _queries(network, train, labelled_L, options.strategy, 1000 * options.seed + number)
            labelled_L = torch.cat([labelled_L, asked_n])
    mean = sum(accuracies) / len(accuracies)
    print(
        f"{options.strategy}, {options.normalisation}, seed {options.seed}: mean {mean:.4f}, last {accuracies[-1]:.4f}"
    )


if __name__ == "__main__":
    main()
