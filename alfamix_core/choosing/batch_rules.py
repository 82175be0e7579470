"""The rules that a batch of queries must respect, made from the project's policy settings."""

import math

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from alfamix_core.acquisition import policy
from alfamix_core.acquisition.constraints import Apart, AtMost, Constraint
from alfamix_core.acquisition.scoring import PREDICTED
from alfamix_core.acquisition.types import Labelled, Scores
from alfamix_core.records.project import Project


def allowed(groups: pa.ChunkedArray, settings: Project) -> Tensor:
    """Return which samples may be queried.

    Args:
        groups: (n,) names of the samples' groups, null for a sample without a group.
        settings: Settings of the project. A sample without a group is refused only if the policy names allowed groups.

    Returns:
        (n,) bool.
    """
    policy_settings = settings.policy
    excluded = pc.is_in(groups, value_set=pa.array(policy_settings.excluded_groups, pa.string()))
    mask = pc.invert(excluded)
    if policy_settings.allowed_groups:
        mask = pc.and_(mask, pc.is_in(groups, value_set=pa.array(policy_settings.allowed_groups, pa.string())))
    return torch.tensor(mask.to_pylist(), dtype=torch.bool)


def reach(settings: Project) -> int:
    """Return how many queries each shard must offer: more than the budget if rules may refuse many of the best."""
    sparse = settings.policy.min_distance > 0 or settings.policy.max_per_group is not None
    return policy.reach(settings.budget, sparse=sparse)


def constraints(scores: Scores, groups: pa.ChunkedArray, settings: Project, labelled: Labelled) -> list[Constraint]:
    """Return the constraints of one batch; each counts what it accepts, so every batch needs its own.

    Args:
        scores: n rows with the columns that the rules read: ``predicted`` for shares by class, ``embeddings`` for a
            distance.
        groups: (n,) names of the rows' groups, null for a row without a group.
        settings: Settings of the project.
        labelled: Labelled samples, from which queries keep their distance.
    """
    rules: list[Constraint] = []
    policy_settings = settings.policy
    if policy_settings.max_per_group is not None:
        codes = groups.combine_chunks().dictionary_encode()
        codes_n = torch.tensor(codes.indices.fill_null(-1).to_pylist(), dtype=torch.int64)
        group_limits = dict.fromkeys(range(len(codes.dictionary)), policy_settings.max_per_group)
        rules.append(AtMost(codes_n, group_limits, "group"))
    if policy_settings.class_shares:
        class_limits = {
            settings.classes.index(name): math.ceil(share * settings.budget)
            for name, share in policy_settings.class_shares.items()
        }
        rules.append(AtMost(scores.column(PREDICTED), class_limits, "class"))
    if policy_settings.min_distance > 0:
        rules.append(Apart(scores.rows["embeddings"], policy_settings.min_distance, labelled.embeddings_LD))
    return rules
