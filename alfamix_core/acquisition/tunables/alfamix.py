"""Tunables of ALFA-Mix."""

from dataclasses import dataclass
from typing import Annotated, Literal

from alfamix_core.acquisition.schedule import schedule
from alfamix_core.acquisition.tunable_types import EFFORT, Count, Effort, NotNegative, Positive


@dataclass(frozen=True)
class Tunables:
    """Mixing of the samples, and the choice among the candidates."""

    alpha: Annotated[
        Literal["closed_form", "bounded", "learned", "random"],
        'Mixing ratios. "closed_form" is the method; "bounded" is the maximiser of the paper\'s equation 4 under a '
        'bound of the ratios themselves; "learned" draws ratios and lets them take four steps, "random" only draws.',
    ] = "closed_form"
    grow: Annotated[
        bool,
        "Whether the cap grows from 0.2 by steps of 0.2 to 1 until there are more candidates than queries; otherwise "
        "it stays at 0.2, as in the paper. The cap of drawn ratios starts at 1/32 and grows by 1/32.",
    ] = True
    first_cap: Annotated[Positive | None, "First cap; null as described for `grow`."] = None
    cap_step: Annotated[Positive | None, "Difference between a cap and the next; null as described for `grow`."] = None
    last_cap: Annotated[Positive | None, "Last cap, at least the first; null as described for `grow`."] = None
    epsilon: Annotated[
        Positive | None,
        "Bound at cap 1: the share of the distance to the anchor that a sample moves, or the norm of the ratios for "
        '"bounded"; null for 1/√D. Drawn ratios are bound by the cap itself.',
    ] = None
    rate: Annotated[NotNegative, "Length of a learning ratio's step."] = 0.1
    iterations: Annotated[Count, "Number of tests for a flip while ratios learn."] = 5
    loss_weight: Annotated[NotNegative, "Weight of the loss that learning ratios raise."] = 1.0
    norm_weight: Annotated[NotNegative, "Weight of their norm, which learning ratios lower."] = 0.01
    selection: Annotated[
        Literal["kmeans", "norm", "symmetric_kl", "uniform"],
        'Choice among the candidates. "kmeans" is the method. Its ablations: "norm" takes those that flip first, or '
        'without the closed form those with the smallest ratios that flip; "symmetric_kl" those whose prediction '
        'changes most; "uniform" any.',
    ] = "kmeans"
    fill: Annotated[
        Literal["critical_cap", "random"],
        'Queries where there are too few candidates: "critical_cap" those that flip next, "random" any.',
    ] = "critical_cap"
    max_candidates: Annotated[
        Count, "Bound on what a shard sends and k-means clusters, though never fewer than the queries plus one."
    ] = 250_000
    anchors: Annotated[
        Literal["all", "farthest", "nearest", "medoids", "samples"],
        'Anchors with which samples are mixed: "all" means of the labelled classes; the "farthest" of these, which '
        'with the closed form and a linear head is the same, and otherwise C times faster; the "nearest" of these; the '
        '"medoids" of the classes; or all labelled "samples".',
    ] = "all"
    clustering: Annotated[Effort, EFFORT] = "fast"
    compatibility: Annotated[
        Literal["none", "released"],
        '"released" does what the released code does: no step in coordinates in which sample and anchor are equal, a '
        "random fill, k-means with ten starts.",
    ] = "none"

    def __post_init__(self) -> None:
        """Refuse tunables that contradict each other.

        Raises:
            ValueError: The caps do not grow, or a variant lacks what another tunable asks for.
        """
        self.schedule()
        if self.drawn and self.epsilon is not None:
            raise ValueError(f'epsilon must be null where alpha is "{self.alpha}", not {self.epsilon:g}')
        if self.ray and self.anchors in ("farthest", "nearest"):
            raise ValueError(f'anchors must not be "{self.anchors}" where each anchor has a ray of its own')
        if self.ray and self.selection == "symmetric_kl":
            raise ValueError('selection must not be "symmetric_kl" where each anchor has a ray of its own')

    @property
    def drawn(self) -> bool:
        """Whether mixing ratios are drawn."""
        return self.alpha in ("learned", "random")

    @property
    def ray(self) -> Literal["bounded", "released"] | None:
        """The kind of ray, if each anchor has one of its own."""
        if self.compatibility == "released" and self.alpha == "closed_form":
            return "released"
        return "bounded" if self.alpha == "bounded" else None

    def schedule(self) -> tuple[float, ...]:
        """Return the caps, ascending.

        Raises:
            ValueError: They do not grow.
        """
        return schedule(self.first_cap, self.cap_step, self.last_cap, drawn=self.drawn)
