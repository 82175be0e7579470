"""Fitting a network to labelled samples."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from alfamix_core.errors import InputError
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.checkpoints import Checkpoint
from alfamix_core.learning.distributed import ALONE, Team, parallel
from alfamix_core.learning.network import Network
from alfamix_core.learning.optimiser import Optimiser
from alfamix_core.learning.transforms import augment
from alfamix_core.records.checkpoint import Course, Unreadable
from alfamix_core.records.project import TrainingSettings

_SETTLING_ROWS = 32


@dataclass(frozen=True)
class Examples:
    """Samples with their labels.

    Attributes:
        images: Images of n samples.
        labels_n: (n,) int64, indices of classes.
    """

    images: SampleImages
    labels_n: Tensor


@dataclass(frozen=True)
class FitResult:
    """The outcome of a training.

    Attributes:
        epochs: Number of passes over the samples.
        losses: Mean loss of each epoch over its samples, weighted by class if the settings say so.
        accuracies: Accuracy of each epoch on its own batches, each measured before its step.
        val_accuracies: Accuracy after each epoch on the val split; empty if the split is not watched.
        stopped_because: Human-readable reason for stopping.
    """

    epochs: int
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    val_accuracies: tuple[float, ...]
    stopped_because: str


class Keeper(Protocol):
    """Where a training saves its state."""

    def is_due(self) -> bool:
        """Return whether the end of this epoch should be saved."""
        ...

    def write(self, checkpoint: Checkpoint) -> None:
        """Save a state in place of the previous one; must not fail."""
        ...


def fit(
    network: Network,
    train: Examples,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    val: Examples | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    team: Team = ALONE,
    keeper: Keeper | None = None,
    begin: Checkpoint | None = None,
) -> FitResult:
    """Train a network in place, from its present weights or from a checkpoint.

    The same weights, samples, settings and seed give the same weights, to the bit on one machine type and thread
    count; the global random state does not change. Samples that cannot be read are left out. A batch of one row is
    doubled, which leaves the gradient the same and lets batch normalisation work. The running statistics of batch
    normalisation are recomputed before the model is evaluated. Pixels are normalised by ``network.pixels``, which a
    checkpoint replaces by its own.

    The processes of a team share every batch and average its gradient, so that the weights are those of one process up
    to rounding; augmentation and dropout draw other numbers, and on the CPU batch normalisation sees only the rows of
    its own process. A training that resumes from a checkpoint with the same number of processes ends with the bits of
    an uninterrupted one.

    Args:
        network: Network to train; afterwards it is on the device, in evaluation mode.
        train: Samples to learn from.
        settings: Settings of the training.
        seed: Seed for the order of samples, the augmentation and dropout.
        device: Device on which to train; bfloat16 autocast is used only on CUDA.
        val: Samples of the val split, read only for stop ``val_accuracy``, which needs them.
        progress: Function called after every epoch with the epochs done and the greatest number of epochs; in the last
            call both are equal.
        team: The processes that train together, this one included; all end with the same weights and result.
        keeper: Receiver of the state at the ends of epochs; only the team's first process calls it.
        begin: State of the same training after an earlier epoch.

    Returns:
        The outcome, epoch by epoch, with no epoch if no sample can be read.

    Raises:
        InputError: The loss is not finite, or stop ``val_accuracy`` has no val sample.
        StorageError: The store does not answer.
    """
    watched = _watched(val, settings)
    if begin is not None:
        network.pixels = begin.course.pixels
        _mark(train, begin.course.unreadable_train)
        _mark(val, begin.course.unreadable_val)
    network.to(device)
    with _own_random_state(seed + team.rank, device):
        generator = torch.Generator().manual_seed(seed)
        own = generator if team.size == 1 else torch.Generator().manual_seed(seed + 1 + team.rank)
        learner = _Learner(network, train, watched, settings, own, device, team)
        training = _Training(learner, train, val, network, settings, generator, device, team)
        if begin is not None:
            training.restore(begin)
        result = training.run(progress, keeper)
    network.eval()
    for examples in (train, val):
        _mark(examples, _unreadable(examples, team))
    return result


def _watched(val: Examples | None, settings: TrainingSettings) -> Examples | None:
    """Return the samples whose accuracy ends the training, or None if the settings watch none."""
    if settings.stop != "val_accuracy":
        return None
    if val is None or not len(val.images):
        raise InputError("training.stop is val_accuracy, but no sample of the val split has a label")
    return val


@dataclass(frozen=True)
class _Step:
    """The result of one forward pass over a batch.

    Attributes:
        logits_nK: Logits of this process's n rows, with gradients; a lone row may occur twice.
        labels_n: Labels of these rows.
        own_rows: Number of rows of this process, a lone row counted once.
        weight: Total weight of all processes' rows, by which the summed loss is divided; None stands for the weight of
            these rows.
        rows: Number of rows of all processes.
    """

    logits_nK: Tensor
    labels_n: Tensor
    own_rows: int
    weight: Tensor | None
    rows: int


class _Learner:
    """The module to train, with its passes over the training samples and its accuracy on the val split."""

    def __init__(
        self,
        network: Network,
        train: Examples,
        val: Examples | None,
        settings: TrainingSettings,
        generator: torch.Generator,
        device: torch.device,
        team: Team,
    ) -> None:
        self.module: nn.Module = network
        self.team = team
        self.generator = generator
        self._train = train
        self._val = val
        self._settings = settings
        self._device = device
        self._runner: nn.Module = parallel(network, device) if team.size > 1 else network

    def passes(self, order_n: Tensor, weight_K: Tensor | None) -> Iterator[_Step]:
        self._runner.train()
        if self.team.size == 1:
            for images_nCSS, labels_n in _readable(self._train, self._settings.batch_size, order_n):
                rows = len(labels_n)
                labels_n = _at_least_two(labels_n.to(self._device))
                yield _Step(self._logits(images_nCSS, twice=True), labels_n, rows, None, rows)
            return
        for batch in self._train.images.batches(self._settings.batch_size, order_n, self.team.own_part):
            images_nCSS = batch.images_bCSS[: len(batch.index_n)][batch.readable_n]
            labels_n = self._train.labels_n[batch.index_n[batch.readable_n]].to(self._device)
            weight = weight_K[labels_n].sum() if weight_K is not None else torch.ones_like(labels_n).sum()
            rows, weight = self.team.total(torch.stack([weight.new_tensor(len(labels_n)), weight]).double())
            if rows:
                # on CUDA statistics span all processes, so a row is doubled only if the whole batch has no other
                twice = len(labels_n) == 1 and (self._device.type != "cuda" or rows == 1)
                logits_nK = self._logits(images_nCSS, twice=twice)[: len(labels_n)]
                yield _Step(logits_nK, labels_n, len(labels_n), weight.float(), int(rows))

    def _logits(self, images_nCSS: Tensor, *, twice: bool) -> Tensor:
        """Return the logits of the augmented images; ``twice`` doubles a lone image."""
        images_nCSS = augment(images_nCSS.to(self._device), self._settings.augmentation, self.generator)
        with _precision(self._settings, self._device):
            logits_nK: Tensor = self._runner(_at_least_two(images_nCSS) if twice else images_nCSS)
        return logits_nK.float()

    def settle(self) -> None:
        """Recompute the running statistics of batch normalisation over the training samples, with the present weights.

        With few labels a training ends after a few steps, when the running averages still consist mostly of their
        initial values: a resnet18 that fits 100 digits then does no better than chance.
        """
        norms = [module for module in self.module.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        if not norms:
            return
        self.module.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            # without momentum, the plain mean over all batches
            norm.momentum = None
            norm.train()
        batch_size = max(_SETTLING_ROWS, self._settings.batch_size)
        own_n = self.team.own_batches(torch.arange(len(self._train.images)), batch_size)
        for images_nCSS, _ in _readable(self._train, batch_size, own_n):
            # a lone row at the end would weigh as much as a full batch
            if len(images_nCSS) == 1 and (self.team.rank or int(norms[0].num_batches_tracked or 0)):
                continue
            with torch.no_grad():
                self.module(_at_least_two(images_nCSS.to(self._device)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if self.team.size > 1:
                _average_over_batches(norm, self.team)
        self.module.eval()

    def val_accuracy(self) -> float | None:
        if self._val is None:
            return None
        self.settle()
        self.module.eval()
        correct = rows = 0
        own_n = self.team.own_batches(torch.arange(len(self._val.images)), self._settings.batch_size)
        for images_nCSS, labels_n in _readable(self._val, self._settings.batch_size, own_n):
            with torch.inference_mode():
                predicted_n = self.module(images_nCSS.to(self._device)).argmax(dim=1).cpu()
            correct += int((predicted_n == labels_n).sum())
            rows += len(labels_n)
        return _share(*self.team.total(torch.tensor([correct, rows], device=self._device)).tolist())


class _Training:
    """A training at the end of an epoch, and the steps that continue it."""

    def __init__(
        self,
        learner: _Learner,
        train: Examples,
        val: Examples | None,
        network: Network,
        settings: TrainingSettings,
        generator: torch.Generator,
        device: torch.device,
        team: Team,
    ) -> None:
        self._learner = learner
        self._train = train
        self._val = val
        self._pixels = network.pixels
        self._settings = settings
        self._generator = generator
        self._device = device
        self._team = team
        parameters = [parameter for parameter in learner.module.parameters() if parameter.requires_grad]
        steps = settings.max_epochs * math.ceil(len(train.images) / settings.batch_size)
        self._optimiser = Optimiser(parameters, settings, steps)
        self._weight_K = _class_weights(train.labels_n, network.head.out_features, settings, device)
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._best = _BestEpoch(learner.module)

    def run(self, progress: Callable[[int, int], None], keeper: Keeper | None) -> FitResult:
        """Train to the end."""
        reason = self._reason_to_stop()
        while not reason:
            if not self._epoch():
                reason = "no sample can be read"
                break
            progress(len(self._losses), self._settings.max_epochs)
            val_accuracy = self._learner.val_accuracy()
            if val_accuracy is not None:
                self._best.update(val_accuracy)
            reason = self._reason_to_stop()
            self._save(keeper)
        if not self._best.epoch:
            self._learner.settle()
        else:
            reason += f"; kept epoch {self._best.epoch} with val accuracy {self._best.restore():.4f}"
        progress(len(self._losses), len(self._losses))
        return FitResult(
            len(self._losses), tuple(self._losses), tuple(self._accuracies), tuple(self._best.accuracies), reason
        )

    def _epoch(self) -> bool:
        """Train on every sample once; return False if none can be read."""
        team = self._learner.team
        loss_sum = torch.zeros((), device=self._device)
        counts_2 = torch.zeros(2, dtype=torch.int64, device=self._device)  # rows, and correct predictions
        order_n = torch.randperm(len(self._train.images), generator=self._generator)
        for step in self._learner.passes(order_n, self._weight_K):
            if step.weight is None:
                loss = cross_entropy(step.logits_nK, step.labels_n, weight=self._weight_K)
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                loss = cross_entropy(step.logits_nK, step.labels_n, weight=self._weight_K, reduction="sum")
                loss = loss / step.weight
                # the gradients are averaged over the processes
                (loss * team.size).backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            loss_sum += loss.detach() * step.rows
            correct_n = step.logits_nK.detach().argmax(dim=1) == step.labels_n
            counts_2[0] += step.own_rows
            counts_2[1] += correct_n[: step.own_rows].sum()
        rows, correct = team.total(counts_2).tolist()
        if not rows:
            return False
        self._losses.append(team.total(loss_sum).item() / rows)
        self._accuracies.append(correct / rows)
        if not math.isfinite(self._losses[-1]):
            raise InputError(
                f"the training loss is {self._losses[-1]} in epoch {len(self._losses)}: lower training.learning_rate, "
                f"which is {self._settings.learning_rate}"
            )
        return True

    def _reason_to_stop(self) -> str:
        """Return why the training ends here, or an empty text."""
        settings, done = self._settings, len(self._losses)
        if settings.stop == "train_accuracy" and done and self._accuracies[-1] >= settings.stop_accuracy:
            return f"training accuracy {self._accuracies[-1]:.4f} reached stop_accuracy = {settings.stop_accuracy}"
        if self._best.epoch and len(self._best.accuracies) - self._best.epoch >= settings.patience:
            return f"val accuracy has not improved for {settings.patience} epochs"
        return f"max_epochs = {settings.max_epochs} are done" if done == settings.max_epochs else ""

    def _save(self, keeper: Keeper | None) -> None:
        if not self._team.agrees(keeper is not None and keeper.is_due()):
            return
        random_states = self._random_states()
        unreadable = [_unreadable(examples, self._team) for examples in (self._train, self._val)]
        if keeper is None or self._team.rank:
            return
        state = {f"model.{name}": value for name, value in self._learner.module.state_dict().items()}
        state |= {f"best.{name}": value for name, value in self._best.weights.items()}
        state |= {f"optimiser.{name}": value for name, value in self._optimiser.state().items()}
        course = Course(
            pixels=self._pixels,
            losses=tuple(self._losses),
            accuracies=tuple(self._accuracies),
            val_accuracies=tuple(self._best.accuracies),
            best_epoch=self._best.epoch,
            steps=self._optimiser.steps_done,
            unreadable_train=unreadable[0],
            unreadable_val=unreadable[1],
        )
        tensors = {name: value.cpu().contiguous() for name, value in state.items()}
        keeper.write(Checkpoint(tensors | random_states, course))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        course = checkpoint.course
        self._losses, self._accuracies = list(course.losses), list(course.accuracies)
        self._learner.module.load_state_dict(_with_prefix("model.", checkpoint.tensors))
        self._best.epoch, self._best.accuracies = course.best_epoch, list(course.val_accuracies)
        self._best.weights = {
            name: value.to(self._device) for name, value in _with_prefix("best.", checkpoint.tensors).items()
        }
        self._optimiser.restore(_with_prefix("optimiser.", checkpoint.tensors), course.steps)
        random_states = _with_prefix(f"random.{self._team.rank}.", checkpoint.tensors)
        self._generator.set_state(random_states["order"])
        self._learner.generator.set_state(random_states["drawing"])
        torch.set_rng_state(random_states["cpu"])
        if "cuda" in random_states:
            torch.cuda.set_rng_state(random_states["cuda"], self._device)

    def _random_states(self) -> dict[str, Tensor]:
        """Return the states of all generators of all processes, by name."""
        own = {
            "order": self._generator.get_state(),
            "drawing": self._learner.generator.get_state(),
            "cpu": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self._device)
        gathered = {name: self._team.gathered(state) for name, state in own.items()}
        return {
            f"random.{rank}.{name}": state for name, states in gathered.items() for rank, state in enumerate(states)
        }


class _BestEpoch:
    """Keeps the weights of the epoch with the greatest val accuracy; the first wins a tie."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.weights: dict[str, Tensor] = {}
        self.accuracies: list[float] = []
        self.epoch = 0

    def update(self, accuracy: float) -> None:
        """Record this epoch's accuracy, and keep its weights if it is the best so far."""
        self.accuracies.append(accuracy)
        if not self.epoch or accuracy > self.accuracies[self.epoch - 1]:
            self.epoch = len(self.accuracies)
            self.weights = {name: value.detach().clone() for name, value in self._module.state_dict().items()}

    def restore(self) -> float:
        """Restore the best epoch's weights, and return its accuracy."""
        self._module.load_state_dict(self.weights)
        return self.accuracies[self.epoch - 1]


def _mark(examples: Examples | None, unreadable: Iterable[Unreadable]) -> None:
    """Let a part's reader leave out samples that are known to be unreadable."""
    if examples is not None:
        examples.images.mark_unreadable({sample.index: sample.reason for sample in unreadable})


def _unreadable(examples: Examples | None, team: Team) -> tuple[Unreadable, ...]:
    """Return the samples that any process of the team could not read so far, in order of index."""
    if examples is None:
        return ()
    own = [(index, reason) for index, reason in examples.images.reasons.items()]
    reasons = dict(pair for text in team.texts(json.dumps(own)) for pair in json.loads(text))
    return tuple(Unreadable(index=index, reason=reasons[index]) for index in sorted(reasons))


def _average_over_batches(norm: nn.BatchNorm1d | nn.BatchNorm2d, team: Team) -> None:
    """Turn running statistics over this process's batches into those over all processes' batches."""
    tracked, mean, variance = norm.num_batches_tracked, norm.running_mean, norm.running_var
    assert tracked is not None
    assert mean is not None
    assert variance is not None
    own = tracked.clone()
    if not int(team.total(tracked)):
        return
    for values in (mean, variance):
        # without a batch, they have the values of a reset
        values.mul_(own / tracked)
        team.total(values)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _readable(examples: Examples, batch_size: int, order_n: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images and labels of the readable samples of each batch that has any."""
    for batch in examples.images.batches(batch_size, order_n):
        if batch.readable_n.any():
            images_nCSS = batch.images_bCSS[: len(batch.index_n)][batch.readable_n]
            yield images_nCSS, examples.labels_n[batch.index_n[batch.readable_n]]


def _at_least_two(rows: Tensor) -> Tensor:
    """Double a lone row, because batch normalisation cannot learn from one row."""
    return rows if len(rows) > 1 else torch.cat([rows, rows])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _class_weights(labels_n: Tensor, classes: int, settings: TrainingSettings, device: torch.device) -> Tensor | None:
    """Return a weight per class, inverse to its count, such that the samples' weights have mean 1."""
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
    """Seed the global random state, from which dropout draws, and restore it afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
