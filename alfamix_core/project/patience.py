"""Retries of a stage after a storage error, as the platform sets them in the environment."""

import math
import os
import random
from dataclasses import dataclass

from alfamix_core.errors import InputError

RETRIES = "ALFAMIX_STAGE_RETRIES"
BACKOFF_SECONDS = "ALFAMIX_STAGE_BACKOFF_SECONDS"
BACKOFF_FACTOR = "ALFAMIX_STAGE_BACKOFF_FACTOR"
LIMIT_SECONDS = "ALFAMIX_STAGE_LIMIT_SECONDS"


@dataclass(frozen=True)
class Patience:
    """A stage's retries while the store fails.

    Attributes:
        retries: Number of further attempts after a storage error.
        seconds: Wait before the first of them.
        factor: Factor by which each further wait is longer.
        limit: Seconds from the stage's start after which no attempt begins; its pod is killed then.
        starts: Number of times that one run may start a shard, in all of its pods.
    """

    retries: int = 0
    seconds: float = 30.0
    factor: float = 2.0
    limit: float = math.inf
    starts: float = math.inf

    def wait(self, retry: int) -> float:
        """Return the seconds before a retry, counted from 0; up to a quarter less, so that shards come apart."""
        return self.seconds * self.factor**retry * random.uniform(0.75, 1.0)


def patience() -> Patience:
    """Return the retries that the platform set in the environment.

    The platform replaces a pod as often as a pod repeats its work, so that a run has ``(1 + retries)**2`` starts.
    Without the platform's settings there is no such limit.

    Raises:
        InputError: A variable does not hold a number in its range.
    """
    defaults = Patience()
    retries = int(_number(RETRIES, defaults.retries, 0, 100))
    return Patience(
        retries=retries,
        seconds=_number(BACKOFF_SECONDS, defaults.seconds, 0, 86_400),
        factor=_number(BACKOFF_FACTOR, defaults.factor, 1, 10),
        limit=_number(LIMIT_SECONDS, defaults.limit, 0, math.inf),
        starts=(1 + retries) ** 2 if os.environ.get(RETRIES) else defaults.starts,
    )


def _number(variable: str, default: float, low: float, high: float) -> float:
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f'the environment variable {variable} must be a number from {low:g} to {high:g}, not "{text}"')
    return value
