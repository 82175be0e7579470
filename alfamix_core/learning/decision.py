"""What a round decides with: its strategy, prepared with the round's model and labelled samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alfamix_core.acquisition import mixing, strategies
from alfamix_core.acquisition.anchors import Anchors, class_means
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.learning import model_folder
from alfamix_core.records.features import read_all
from alfamix_core.records.model import CARD_FILE, ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.round import Round


@dataclass(frozen=True)
class Decision:
    """A prepared strategy.

    Attributes:
        strategy: the project's, or its cold start.
        state: what it prepared.
        labelled: the training samples' features, on the device.
        labelled_rows_L: (L,) int64, their rows in labelled.parquet.
        head: of the round's model, on the device.
        device: where scores are computed.
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
        """Return a block of a features folder as acquisition takes it, on the device."""
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
        """Say in words why a sample was chosen; empty where the score says it all."""
        parameters = self.strategy.parameters
        closed_form = parameters.get("alpha", "closed_form") == "closed_form"
        # towards other anchors, or less than the whole step, is another flip
        as_usual = parameters.get("anchors", "all") in ("all", "farthest") and "compatibility" not in parameters
        if self.strategy.name != "alfamix" or not (closed_form and as_usual) or not math.isfinite(score):
            return ""
        just_above = -score * (1 + 1e-4) + 1e-6
        why = mixing.explain(embedding_D.to(self.device), self.anchors, self.head, just_above)
        if why.flips_to is None:
            return ""
        return f"mixed with {classes[why.anchor]}, {classes[why.predicted]} becomes {classes[why.flips_to]}"

    def no_features(self) -> Features:
        """Return a block without rows, so that an empty shard has one."""
        passes = self.strategy.column_parameters().get("passes", 1)
        logits_0K = self.labelled.logits_LK[:0]
        return Features(
            self.labelled_rows_L[:0].to(self.device),
            embeddings_nD=self.labelled.embeddings_LD[:0],
            logits_nK=logits_0K,
            mc_logits_nTK=logits_0K[:, None].expand(0, passes, -1),
            deepfool_n=logits_0K[:, 0],
        )


def read_card(model: Path) -> ModelCard:
    """Return what a model folder says of itself."""
    return ModelCard.parse((model / CARD_FILE).read_bytes(), CARD_FILE)


def chooser(settings: Project, card: ModelCard, temperature: float | None = None) -> Strategy:
    """Return the strategy that chooses: the project's, or its cold start while the model is untrained.

    Args:
        settings: of the project.
        card: of the round's model.
        temperature: that calibrates the champion; for a strategy that takes one and was given none.

    Raises:
        InputError: an unknown strategy or parameter.
    """
    if not card.trained:
        return strategies.load(settings.strategy.cold_start)
    name, parameters = settings.strategy.name, settings.strategy.parameters
    if temperature is not None and "temperature" in strategies.tunables(name):
        parameters = {"temperature": temperature, **parameters}
    return strategies.load(name, parameters)


def wanted_columns(settings: Project, strategy: Strategy) -> frozenset[str]:
    """Return the columns that a round's features hold: the strategy's, and those that the policy needs."""
    policy = settings.policy
    also = {"logits": bool(policy.class_shares), "embeddings": policy.min_distance > 0}
    return strategy.columns | {name for name, needed in also.items() if needed}


def load_decision(record: Round, model: Path, labelled: Path, device: torch.device) -> Decision:
    """Prepare a round's strategy.

    Args:
        record: the round.
        model: folder of its model.
        labelled: folder of its training samples' features.
        device: where to compute.

    Raises:
        InputError: an unknown strategy or parameter, or a model of another architecture or class list.
    """
    settings = record.settings
    head = model_folder.load_head(model, settings)
    size = head.weight_KD.shape[1]
    head = LinearHead(head.weight_KD.to(device), head.bias_K.to(device))
    known = _labelled_features(labelled, size, len(settings.classes), settings.model.embedding_dtype)
    features = Labelled(known[0].to(device), known[1].to(device), known[2].to(device))
    card = read_card(model)
    strategy = chooser(settings, card, record.champion.metrics.get("temperature"))
    return Decision(
        strategy, strategy.prepare(features, head, record.seed), features, known[3], head, device, card.trained
    )


def _labelled_features(folder: Path, size: int, classes: int, dtype: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return embeddings, logits, labels and rows of the labelled features; tables without rows when there are none."""
    columns = read_all(folder)
    if columns:
        return columns["embeddings"], columns["logits"], columns["labels"], columns["rows"]
    none = torch.zeros(0, dtype=torch.int64)
    return torch.zeros(0, size, dtype=getattr(torch, dtype)), torch.zeros(0, classes), none, none
