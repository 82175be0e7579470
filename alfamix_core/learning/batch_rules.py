"""From the project's policy settings to the rules that a batch of queries must respect."""

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
    """Return which samples may be asked at all.

    Args:
        groups: (n,) names of their groups, null where they have none.
        settings: of the project; a sample without a group is refused only where groups are named as allowed.

    Returns:
        (n,) bool.
    """
    rules = settings.policy
    excluded = pc.is_in(groups, value_set=pa.array(rules.excluded_groups, pa.string()))
    mask = pc.invert(excluded)
    if rules.allowed_groups:
        mask = pc.and_(mask, pc.is_in(groups, value_set=pa.array(rules.allowed_groups, pa.string())))
    return torch.tensor(mask.to_pylist(), dtype=torch.bool)


def reach(settings: Project) -> int:
    """Return how many queries a shard must be ready for; more where rules may refuse many of the best."""
    sparse = settings.policy.min_distance > 0 or settings.policy.max_per_group is not None
    return policy.reach(settings.budget, sparse=sparse)


def constraints(scores: Scores, groups: pa.ChunkedArray, settings: Project, labelled: Labelled) -> list[Constraint]:
    """Return the project's rules for one batch, fresh.

    Args:
        scores: n rows, with what the rules need: ``predicted`` for shares by class, ``embeddings`` for a distance.
        groups: (n,) names of the groups of these rows, null where they have none.
        settings: of the project.
        labelled: the labelled samples, from which queries keep their distance.
    """
    rules: list[Constraint] = []
    wanted = settings.policy
    if wanted.max_per_group is not None:
        codes = groups.combine_chunks().dictionary_encode()
        codes_n = torch.tensor(codes.indices.fill_null(-1).to_pylist(), dtype=torch.int64)
        rules.append(AtMost(codes_n, dict.fromkeys(range(len(codes.dictionary)), wanted.max_per_group), "group"))
    if wanted.class_shares:
        limits = {
            settings.classes.index(name): math.ceil(share * settings.budget)
            for name, share in wanted.class_shares.items()
        }
        rules.append(AtMost(scores.column(PREDICTED), limits, "class"))
    if wanted.min_distance > 0:
        rules.append(Apart(scores.rows["embeddings"], wanted.min_distance, labelled.embeddings_LD))
    return rules
