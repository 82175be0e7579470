"""Fitting a network to labelled samples."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from alfamix_core.errors import InputError
from alfamix_core.learning.batches import SampleImages, pieces
from alfamix_core.learning.network import Network
from alfamix_core.learning.optimiser import Optimiser
from alfamix_core.learning.transforms import augment
from alfamix_core.records.project import TrainingSettings

_SETTLING_ROWS = 32


@dataclass(frozen=True)
class Examples:
    """Samples with their labels.

    Attributes:
        images: n samples.
        labels_n: (n,) int64, indices of classes.
    """

    images: SampleImages
    labels_n: Tensor


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        epochs: passes over the samples.
        losses: per epoch, the mean over its batches' samples, weighted by class if so set.
        accuracies: per epoch, of its own batches, each judged before its step.
        val_accuracies: per epoch, on the val split; empty if it is not watched.
        stopped_because: in words.
    """

    epochs: int
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    val_accuracies: tuple[float, ...]
    stopped_because: str


def fit(
    network: Network,
    train: Examples,
    settings: TrainingSettings,
    *,
    frozen_encoder: bool,
    seed: int,
    device: torch.device,
    val: Examples | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FitResult:
    """Train a network in place, beginning with the weights that it has.

    The same weights, samples, settings and seed give the same weights, to the bit on one machine type and thread
    count; the global random state is as it was. Samples that cannot be read are left out. A batch of one row is taken
    twice, which has the same gradient, for the sake of batch normalisation, whose statistics are set anew
    before the model is judged.

    Args:
        network: ends on the device, in evaluation mode.
        train: the samples to learn from.
        settings: see there.
        frozen_encoder: learn the head alone; the encoder stays in evaluation mode, and without augmentation it runs
            once over every sample.
        seed: of the order of samples, the augmentation and dropout.
        device: where to train; bfloat16 autocast happens on CUDA only.
        val: needed for stop ``val_accuracy``, else not read.
        progress: called after every epoch with (epochs done, epochs at most); at the end both are equal.

    Returns:
        What happened, epoch by epoch; no epoch if no sample can be read.

    Raises:
        InputError: the loss is not finite, or there is no val sample for stop ``val_accuracy``.
        StorageError: the store does not answer.
    """
    watched = val if settings.stop == "val_accuracy" else None
    if settings.stop == "val_accuracy" and (watched is None or not len(watched.images)):
        raise InputError("training.stop is val_accuracy, but no sample of the val split has a label")
    network.to(device)
    with _own_random_state(seed, device):
        generator = torch.Generator().manual_seed(seed)
        learner: _Learner
        if frozen_encoder and settings.augmentation == "none":
            learner = _HeadOnEmbeddings(network, train, watched, settings, device)
        else:
            learner = _WholeNetwork(network, train, watched, settings, frozen_encoder, generator, device)
        result = _epochs(learner, train, network.head.out_features, settings, generator, device, progress)
    network.requires_grad_(True).eval()
    return result


class _Learner(Protocol):
    """What is learned: the module, its passes over the training samples, its accuracy on the val split."""

    module: nn.Module

    def passes(self, order_n: Tensor) -> Iterator[tuple[Tensor, Tensor]]: ...

    def settle(self) -> None: ...

    def val_accuracy(self) -> float | None: ...


def _epochs(
    learner: _Learner,
    train: Examples,
    classes: int,
    settings: TrainingSettings,
    generator: torch.Generator,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> FitResult:
    total = len(train.images)
    parameters = [parameter for parameter in learner.module.parameters() if parameter.requires_grad]
    optimiser = Optimiser(parameters, settings, settings.max_epochs * math.ceil(total / settings.batch_size))
    weight_K = _class_weights(train.labels_n, classes, settings, device)
    losses: list[float] = []
    accuracies: list[float] = []
    best = _BestEpoch(learner.module, settings.patience)
    reason = f"max_epochs = {settings.max_epochs} are done"
    for epoch in range(1, settings.max_epochs + 1):
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        rows = 0
        for logits_nK, labels_n in learner.passes(torch.randperm(total, generator=generator)):
            loss = cross_entropy(logits_nK, labels_n, weight=weight_K)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss_sum += loss.detach() * len(labels_n)
            correct += (logits_nK.detach().argmax(dim=1) == labels_n).sum()
            rows += len(labels_n)
        if not rows:
            reason = "no sample can be read"
            break
        losses.append(loss_sum.item() / rows)
        accuracies.append(correct.item() / rows)
        if not math.isfinite(losses[-1]):
            raise InputError(
                f"the training loss is {losses[-1]} in epoch {epoch}: lower training.learning_rate, which is "
                f"{settings.learning_rate}"
            )
        progress(epoch, settings.max_epochs)
        if settings.stop == "train_accuracy" and accuracies[-1] >= settings.stop_accuracy:
            reason = f"training accuracy {accuracies[-1]:.4f} reached stop_accuracy = {settings.stop_accuracy}"
            break
        val_accuracy = learner.val_accuracy()
        if val_accuracy is not None and best.is_over(val_accuracy):
            reason = f"val accuracy has not improved for {settings.patience} epochs"
            break
    if not best.epoch:
        learner.settle()
    else:
        reason += f"; kept epoch {best.epoch} with val accuracy {best.restore():.4f}"
    progress(len(losses), len(losses))
    return FitResult(len(losses), tuple(losses), tuple(accuracies), tuple(best.accuracies), reason)


class _BestEpoch:
    """Keeps the weights of the epoch with the greatest val accuracy, of equal ones the first."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._module = module
        self._patience = patience
        self._weights: dict[str, Tensor] = {}
        self.accuracies: list[float] = []
        self.epoch = 0

    def is_over(self, accuracy: float) -> bool:
        """Take note of an epoch's accuracy; return whether the best one is ``patience`` epochs old."""
        self.accuracies.append(accuracy)
        if not self.epoch or accuracy > self.accuracies[self.epoch - 1]:
            self.epoch = len(self.accuracies)
            self._weights = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        return len(self.accuracies) - self.epoch >= self._patience

    def restore(self) -> float:
        """Put the best epoch's weights back and return its accuracy."""
        self._module.load_state_dict(self._weights)
        return self.accuracies[self.epoch - 1]


class _WholeNetwork:
    """Every pass goes through the network; a frozen encoder computes no gradients and stays in evaluation mode."""

    def __init__(
        self,
        network: Network,
        train: Examples,
        val: Examples | None,
        settings: TrainingSettings,
        frozen_encoder: bool,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.module: nn.Module = network
        self._encoder = network.encoder
        self._train = train
        self._val = val
        self._settings = settings
        self._frozen = frozen_encoder
        self._generator = generator
        self._device = device
        network.encoder.requires_grad_(not frozen_encoder)

    def passes(self, order_n: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        self.module.train()
        if self._frozen:
            self._encoder.eval()
        for images_nCSS, labels_n in _readable(self._train, self._settings.batch_size, order_n):
            images_nCSS = augment(images_nCSS.to(self._device), self._settings.augmentation, self._generator)
            labels_n = _at_least_two(labels_n.to(self._device))
            with _precision(self._settings, self._device):
                logits_nK = self.module(_at_least_two(images_nCSS))
            yield logits_nK.float(), labels_n

    def settle(self) -> None:
        """Set the running statistics of batch normalisation to the training samples' under the present weights.

        With few labels a training ends after a few steps, and the running averages still hold mostly their initial
        values: a resnet18 that fits 100 digits then guesses.
        """
        norms = [module for module in self.module.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        if not norms or self._frozen:
            return
        self.module.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            # no momentum: the plain mean over all batches
            norm.momentum = None
            norm.train()
        for images_nCSS, _ in _readable(self._train, max(_SETTLING_ROWS, self._settings.batch_size)):
            # a lone row at the end would count as much as a full batch
            if len(images_nCSS) == 1 and int(norms[0].num_batches_tracked or 0):
                continue
            with torch.no_grad():
                self.module(_at_least_two(images_nCSS.to(self._device)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.module.eval()

    def val_accuracy(self) -> float | None:
        if self._val is None:
            return None
        self.settle()
        self.module.eval()
        correct = rows = 0
        for images_nCSS, labels_n in _readable(self._val, self._settings.batch_size):
            with torch.inference_mode():
                predicted_n = self.module(images_nCSS.to(self._device)).argmax(dim=1).cpu()
            correct += int((predicted_n == labels_n).sum())
            rows += len(labels_n)
        return _share(correct, rows)


class _HeadOnEmbeddings:
    """The encoder runs once over every sample; then the head learns from embeddings in memory."""

    def __init__(
        self, network: Network, train: Examples, val: Examples | None, settings: TrainingSettings, device: torch.device
    ) -> None:
        network.eval()
        self.module: nn.Module = nn.Sequential(network.dropout, network.head)
        self._batch_size = settings.batch_size
        self._train = _embedded(network, train, settings, device)
        self._val = _embedded(network, val, settings, device) if val else None

    def passes(self, order_n: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        self.module.train()
        for part_n in pieces(order_n, self._batch_size):
            places_n = self._train.places_N[part_n]
            places_n = places_n[places_n >= 0]
            if len(places_n):
                yield self.module(self._train.embeddings_nD[places_n]), self._train.labels_n[places_n]

    def settle(self) -> None:
        """Do nothing: the encoder has not changed, and the head has no statistics."""

    def val_accuracy(self) -> float | None:
        if self._val is None:
            return None
        self.module.eval()
        with torch.inference_mode():
            predicted_n = self.module(self._val.embeddings_nD).argmax(dim=1)
        return _share(int((predicted_n == self._val.labels_n).sum()), len(predicted_n))


@dataclass(frozen=True)
class _Embedded:
    """Embeddings and labels of the readable ones of N samples; ``places_N`` is a sample's row, -1 for the others."""

    embeddings_nD: Tensor
    labels_n: Tensor
    places_N: Tensor


def _embedded(network: Network, examples: Examples, settings: TrainingSettings, device: torch.device) -> _Embedded:
    blocks = [torch.empty(0, network.embedding_size, device=device)]
    for batch in examples.images.batches(settings.batch_size):
        with torch.no_grad():
            embeddings_bD = network.embed(batch.images_bCSS.to(device)).float()
        blocks.append(embeddings_bD[: len(batch.index_n)][batch.readable_n.to(device)])
    readable_n = examples.images.readable_n
    places_N = torch.where(readable_n, readable_n.cumsum(0) - 1, -1)
    return _Embedded(torch.cat(blocks), examples.labels_n[readable_n].to(device), places_N)


def _readable(examples: Examples, batch_size: int, order_n: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels of the readable samples of every batch that has one."""
    for batch in examples.images.batches(batch_size, order_n):
        if batch.readable_n.any():
            images_nCSS = batch.images_bCSS[: len(batch.index_n)][batch.readable_n]
            yield images_nCSS, examples.labels_n[batch.index_n[batch.readable_n]]


def _at_least_two(rows: Tensor) -> Tensor:
    """Return a lone row twice: batch normalisation cannot learn from one."""
    return rows if len(rows) > 1 else torch.cat([rows, rows])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _class_weights(labels_n: Tensor, classes: int, settings: TrainingSettings, device: torch.device) -> Tensor | None:
    """Return a weight a class, inverse to its count, so that the weights of all samples have mean 1."""
    if settings.class_weights == "none":
        return None
    count_K = labels_n.bincount(minlength=classes)
    present = int((count_K > 0).sum())
    return torch.where(count_K > 0, len(labels_n) / (present * count_K.clamp(min=1)), 1.0).to(device)


def _precision(settings: TrainingSettings, device: torch.device) -> AbstractContextManager[object]:
    if settings.mixed_precision and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global state, which dropout draws from, and put it back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
