"""An optimiser with torch's own arithmetic, without its optimiser classes.

Creating any ``torch.optim.Optimizer`` imports the compiler, which takes as long as importing torch itself; the
functions behind the classes do not. A test compares the steps with those of the classes, to the bit.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from alfamix_core.records.project import TrainingSettings


class Optimiser:
    """Adam, AdamW, or SGD with Nesterov momentum; the learning rate is constant or follows a cosine."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: TrainingSettings, steps: int) -> None:
        """Take the parameters to learn.

        Args:
            parameters: parameters to learn; a step leaves those without a gradient unchanged.
            settings: settings of the optimiser: its name, learning rate, weight decay and schedule.
            steps: number of steps of a full training, at which the cosine ends.
        """
        self._parameters = list(parameters)
        self._settings = settings
        self._steps = steps
        self._done = 0
        self._first: dict[int, Tensor] = {}
        self._second: dict[int, Tensor] = {}
        self._count: dict[int, Tensor] = {}

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        if self._settings.schedule == "constant":
            return self._settings.learning_rate
        return self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self._done / self._steps))

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients, and clear the gradients."""
        indices = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters: list[Tensor] = [self._parameters[index] for index in indices]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self._settings.optimiser == "sgd":
            self._sgd(indices, parameters, gradients)
        else:
            self._adam(indices, parameters, gradients)
        for parameter in self._parameters:
            parameter.grad = None
        self._done += 1

    @property
    def steps_done(self) -> int:
        """Number of steps so far."""
        return self._done

    def state(self) -> dict[str, Tensor]:
        """Return the running averages by name; the next step changes them in place."""
        kinds = {"first": self._first, "second": self._second, "count": self._count}
        return {f"{kind}.{index}": value for kind, values in kinds.items() for index, value in values.items()}

    def restore(self, state: dict[str, Tensor], steps_done: int) -> None:
        """Resume from a state that ``state`` returned, on any device."""
        kinds = {"first": self._first, "second": self._second, "count": self._count}
        for name, value in state.items():
            kind, index = name.split(".")
            parameter = self._parameters[int(index)]
            kinds[kind][int(index)] = value.to(parameter.device, copy=True)
        self._done = steps_done

    def _adam(self, indices: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for index, parameter in zip(indices, parameters, strict=True):
            if index not in self._first:
                self._first[index] = torch.zeros_like(parameter)
                self._second[index] = torch.zeros_like(parameter)
                self._count[index] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adam(
            parameters,
            gradients,
            [self._first[index] for index in indices],
            [self._second[index] for index in indices],
            [],
            [self._count[index] for index in indices],
            fused=True,
            decoupled_weight_decay=self._settings.optimiser == "adamw",
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self._settings.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def _sgd(self, indices: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        momentum: list[Tensor | None] = [self._first.get(index) for index in indices]
        sgd(
            parameters,
            gradients,
            momentum,
            foreach=False,
            fused=False,
            weight_decay=self._settings.weight_decay,
            momentum=0.9,
            lr=self.learning_rate,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )
        for index, buffer in zip(indices, momentum, strict=True):
            if buffer is not None:
                self._first[index] = buffer
