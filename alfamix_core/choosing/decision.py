"""A round's strategy, prepared with the round's model and its labelled samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alfamix_core.acquisition import mixing, registry, strategies
from alfamix_core.acquisition.anchors import Anchors, class_means
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.tunables import alfamix
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.learning import model_folder
from alfamix_core.records.features import read_all
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.round import Round


@dataclass(frozen=True)
class Decision:
    """A prepared strategy.

    Attributes:
        strategy: The project's strategy, or its cold start.
        state: State that the strategy prepared.
        labelled: Features of the training samples, on the device.
        labelled_rows_L: (L,) int64 row numbers of the training samples in labelled.parquet.
        head: Head of the round's model, on the device.
        device: Device on which scores are computed.
        trained: False while the model has its initial weights, whose predictions mean nothing.
    """

    strategy: Strategy
    state: Any
    labelled: Labelled
    labelled_rows_L: Tensor
    head: LinearHead
    device: torch.device
    trained: bool

    def features(self, columns: dict[str, Tensor]) -> Features:
        """Return a block of a features folder as the ``Features`` that acquisition takes, on the device."""
        on_device = {name: column.to(self.device) for name, column in columns.items()}
        return Features(
            on_device["positions"],
            embeddings_nD=on_device.get("embeddings"),
            logits_nK=on_device.get("logits"),
            mc_logits_nTK=on_device.get("mc_logits"),
            deepfool_n=on_device.get("deepfool"),
        )

    @cached_property
    def anchors(self) -> Anchors:
        """The means of the labelled classes, computed once for all queries."""
        return class_means(self.labelled)

    def explain(self, embedding_D: Tensor, score: float, classes: Sequence[str]) -> str:
        """Return a human-readable reason why a sample was chosen; empty if the score says it all."""
        tunables = self.strategy.tunables
        if not isinstance(tunables, alfamix.Tunables) or not math.isfinite(score):
            return ""
        # towards other anchors, or less than the whole step, is another flip
        usual = tunables.compatibility == "none" and tunables.anchors in ("all", "farthest")
        if tunables.alpha != "closed_form" or not usual:
            return ""
        just_above = -score * (1 + 1e-4) + 1e-6
        flip = mixing.explain(embedding_D.to(self.device), self.anchors, self.head, just_above)
        if flip.flips_to is None:
            return ""
        return f"mixed with {classes[flip.anchor]}, {classes[flip.predicted]} becomes {classes[flip.flips_to]}"

    def no_features(self) -> Features:
        """Return a block without rows, for an empty shard."""
        passes = self.strategy.column_parameters().get("passes", 1)
        logits_0K = self.labelled.logits_LK[:0]
        return Features(
            self.labelled_rows_L[:0].to(self.device),
            embeddings_nD=self.labelled.embeddings_LD[:0],
            logits_nK=logits_0K,
            mc_logits_nTK=logits_0K[:, None].expand(0, passes, -1),
            deepfool_n=logits_0K[:, 0],
        )


def strategy_of_round(settings: Project, card: ModelCard, temperature: float | None = None) -> Strategy:
    """Return the project's strategy, or its cold start while the model is untrained.

    Args:
        settings: Settings of the project.
        card: Card of the round's model.
        temperature: Temperature that calibrates the champion, for a strategy that takes one and was given none.

    Raises:
        InputError: The strategy or one of its parameters is unknown.
    """
    if not card.trained:
        return strategies.load(settings.strategy.cold_start)
    name, parameters = settings.strategy.name, settings.strategy.parameters
    if temperature is not None and "temperature" in registry.annotations(name):
        parameters = {"temperature": temperature, **parameters}
    return strategies.load(name, parameters)


def wanted_columns(settings: Project, strategy: Strategy) -> frozenset[str]:
    """Return the columns of a round's features: those that the strategy reads, and those that the policy reads."""
    policy = settings.policy
    read_by_policy = {"logits": bool(policy.class_shares), "embeddings": policy.min_distance > 0}
    return strategy.columns | {name for name, is_read in read_by_policy.items() if is_read}


def load_decision(record: Round, model: Path, labelled: Path, device: torch.device) -> Decision:
    """Prepare a round's strategy.

    Args:
        record: Record of the round.
        model: Folder of the round's model.
        labelled: Folder of the training samples' features.
        device: Device on which to compute.

    Raises:
        InputError: The strategy or one of its parameters is unknown, or the model has another architecture or other
            classes.
    """
    settings = record.settings
    head = model_folder.load_head(model, settings)
    size = head.weight_KD.shape[1]
    head = LinearHead(head.weight_KD.to(device), head.bias_K.to(device))
    embeddings_LD, logits_LK, labels_L, rows_L = _labelled_features(
        labelled, size, len(settings.classes), settings.model.embedding_dtype
    )
    features = Labelled(embeddings_LD.to(device), logits_LK.to(device), labels_L.to(device))
    card = model_folder.read_card(model)
    strategy = strategy_of_round(settings, card, record.champion.metrics.get("temperature"))
    return Decision(
        strategy=strategy,
        state=strategy.prepare(features, head, record.seed),
        labelled=features,
        labelled_rows_L=rows_L,
        head=head,
        device=device,
        trained=card.trained,
    )


def _labelled_features(folder: Path, size: int, classes: int, dtype: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the embeddings, logits, labels and row numbers of the labelled samples; without any, empty tensors."""
    columns = read_all(folder)
    if columns:
        return columns["embeddings"], columns["logits"], columns["labels"], columns["rows"]
    none = torch.zeros(0, dtype=torch.int64)
    return torch.zeros(0, size, dtype=getattr(torch, dtype)), torch.zeros(0, classes), none, none
