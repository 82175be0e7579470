"""torch's optimisers, as the settings of a training name them."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alfamix_core.records.project import TrainingSettings


class Optimiser:
    """Adam, AdamW, or SGD with Nesterov momentum; the learning rate is constant or follows a cosine.

    Attributes:
        steps_done: Number of steps so far.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: TrainingSettings, steps: int) -> None:
        """Take the parameters to learn.

        Args:
            parameters: Parameters to learn, at least one; a step leaves those without a gradient unchanged.
            settings: Settings of the optimiser: its name, learning rate, weight decay and schedule.
            steps: Number of steps of a full training, at which the cosine ends.
        """
        self._settings = settings
        self._steps = steps
        self._optimiser = _created(parameters, settings)
        self.steps_done = 0

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        if self._settings.schedule == "constant":
            return self._settings.learning_rate
        return self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * self.steps_done / self._steps))

    def step(self) -> None:
        """Move the parameters along their gradients, and clear the gradients."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.steps_done += 1

    def state(self) -> dict[str, Tensor]:
        """Return the running averages by name; the next step changes them in place."""
        states = self._optimiser.state_dict()["state"]
        return {f"{index}.{name}": value for index, values in states.items() for name, value in values.items()}

    def restore(self, state: dict[str, Tensor], steps_done: int) -> None:
        """Resume from a state that ``state`` returned, on any device."""
        states: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in state.items():
            index, kind = name.split(".")
            states[int(index)][kind] = value.clone()
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": states})
        self.steps_done = steps_done


def _created(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=decay, foreach=False)
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay, fused=True)
