"""One optimiser with torch's own arithmetic and without its optimiser classes.

Making any ``torch.optim.Optimizer`` imports the compiler, which takes as long as importing torch itself; the functions
behind the classes do not. A test compares the steps with those of the classes, to the bit.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from alfamix_core.records.project import TrainingSettings


class Optimiser:
    """Adam, AdamW, or SGD with Nesterov momentum, with a learning rate that may fall as a cosine."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: TrainingSettings, steps: int) -> None:
        """Take the parameters to be learned.

        Args:
            parameters: those that have no gradient when a step is made stay as they are.
            settings: which optimiser, learning rate, weight decay, schedule.
            steps: that a full training would make; the cosine ends there.
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
        """Of the next step."""
        if self._settings.schedule == "constant":
            return self._settings.learning_rate
        return self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self._done / self._steps))

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients, and forget the gradients."""
        places = [place for place, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters: list[Tensor] = [self._parameters[place] for place in places]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self._settings.optimiser == "sgd":
            self._sgd(places, parameters, gradients)
        else:
            self._adam(places, parameters, gradients)
        for parameter in self._parameters:
            parameter.grad = None
        self._done += 1

    @property
    def steps_done(self) -> int:
        """Steps made so far."""
        return self._done

    def state(self) -> dict[str, Tensor]:
        """Return the running averages by name; they go on changing with the next step."""
        kinds = {"first": self._first, "second": self._second, "count": self._count}
        return {f"{kind}.{place}": value for kind, values in kinds.items() for place, value in values.items()}

    def restore(self, state: dict[str, Tensor], steps_done: int) -> None:
        """Go on from a state as ``state`` returns it, on any device."""
        kinds = {"first": self._first, "second": self._second, "count": self._count}
        for name, value in state.items():
            kind, place = name.split(".")
            parameter = self._parameters[int(place)]
            kinds[kind][int(place)] = value.to(parameter.device, copy=True)
        self._done = steps_done

    def _adam(self, places: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        for place, parameter in zip(places, parameters, strict=True):
            if place not in self._first:
                self._first[place] = torch.zeros_like(parameter)
                self._second[place] = torch.zeros_like(parameter)
                self._count[place] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adam(
            parameters,
            gradients,
            [self._first[place] for place in places],
            [self._second[place] for place in places],
            [],
            [self._count[place] for place in places],
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

    def _sgd(self, places: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        momentum: list[Tensor | None] = [self._first.get(place) for place in places]
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
        for place, buffer in zip(places, momentum, strict=True):
            if buffer is not None:
                self._first[place] = buffer
