"""Measure the round's model on the test split, keep it in the project, and propose whether it is promoted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch

from alfamix_core.errors import InputError
from alfamix_core.evaluation.calibration import fit_temperature
from alfamix_core.evaluation.metrics import Metrics, measure
from alfamix_core.learning import device, model_folder
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.kept_features import KeptFeatures, kept_features
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.project import champion, layout, lock, models
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records import evaluation
from alfamix_core.records.evaluation import ClassMetrics, Evaluation
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.round import Promotion, Round
from alfamix_core.records.snapshot import read_labelled, read_roots, read_round
from alfamix_core.reports.confusion import mistakes_page
from alfamix_core.storage import open_store

MANY_CLASSES = 100
"""Number of classes from which Kubeflow gets no confusion matrix, because the API's database cannot hold it."""
_CALIBRATION = "val"  # its labels neither train the weights nor judge the model
_NEVER = 1e4  # distance of a logit below all others of its row, still finite


def run(
    project_uri: str,
    run_id: str,
    snapshot_path: str,
    champion_path: str,
    model_path: str,
    evaluation_path: str,
    mistakes_path: str = "",
) -> Evaluation:
    """Write evaluation.json, with the proposal about the champion, and copy the model to ``models/<digest>/``.

    No record of the project changes: the proposal takes effect once ``export`` commits the round.

    Args:
        project_uri: URI of the project.
        run_id: ID of this run, which must hold the project's lock.
        snapshot_path: Folder of the round's snapshot.
        champion_path: Folder of the champion that the round froze.
        model_path: Folder of the round's model.
        evaluation_path: Folder to write; evaluation.json has the whole confusion matrix.
        mistakes_path: Path of a Markdown table of the most frequent mistakes, which is written; '' writes none.

    Returns:
        The contents of evaluation.json.

    Raises:
        InputError: A model does not have the project's architecture and classes.
        LockedError: Another run has taken the project over.
        StorageError: The store does not answer.
    """
    snapshot, model, folder = Path(snapshot_path), Path(model_path), Path(evaluation_path)
    with StageMeter("evaluate", consumed=[model], outputs=[folder], device=device.choose()) as meter:
        record = read_round(snapshot)
        splits = {name: _Split.read(snapshot, name, record.settings) for name in ("test", "audit", _CALIBRATION)}
        network, card = model_folder.load(model, record.settings)
        predictions = {name: _predict(network, split, record.settings) for name, split in splits.items()}
        compared: Literal["test", "audit"] = "test" if len(predictions["test"]) else "audit"
        is_comparable = record.champion.round is not None and len(predictions[compared]) > 0
        rival = _predict_champion(Path(champion_path), splits[compared], record.settings) if is_comparable else None
        temperature = _temperature([predictions[name] for name in (_CALIBRATION, "test", "audit")])
        store = open_store(project_uri)
        now = datetime.now(UTC)
        lock.renew(store, run_id, now, now + timedelta(hours=record.settings.round.max_hours))
        digest = models.upload(store, model) if card.trained else ""
        promotion = _proposal(record, digest, compared, predictions[compared], rival, temperature)
        if kept := _kept(network, splits["test"].roots, record.settings):
            promotion = promotion.model_copy(update={"encoder": kept.encoder})
        agreement = predictions[compared].agreement(rival) if rival else None
        evaluated = _evaluation(record, card, predictions, agreement, promotion, temperature)
        _write(evaluated, folder, mistakes_path)
        meter.rows = sum(len(split.images) for split in splits.values())
        meter.add(*(split.images for split in splits.values()))
    return evaluated


@dataclass(frozen=True)
class _Split:
    """The labelled samples of one split.

    Attributes:
        table: Rows of labelled.parquet.
        roots: URIs of the folders to which a symbolic link may lead.
        images: Images of the samples, as the round's model sees them.
        labels_n: (n,) int64.
    """

    table: pa.Table
    roots: Sequence[str]
    images: SampleImages
    labels_n: torch.Tensor

    @staticmethod
    def read(snapshot: Path, name: str, settings: Project) -> "_Split":
        """Return a split of a snapshot, possibly without samples."""
        table, roots = read_labelled(snapshot, name), read_roots(snapshot, settings)
        labels_n = torch.tensor(table["label"].to_pylist(), dtype=torch.int64)
        return _Split(table, roots, images(table, settings, roots), labels_n)


@dataclass(frozen=True)
class _Predictions:
    """A model's predictions for the readable samples of a split: index_n, labels_n (n,) int64 and logits_nK (n, K)."""

    index_n: torch.Tensor
    logits_nK: torch.Tensor
    labels_n: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels_n)

    def measure(self) -> Metrics | None:
        """Return the metrics, or None without samples."""
        return measure(self.logits_nK, self.labels_n)

    def agreement(self, other: "_Predictions") -> float | None:
        """Return the share of equal predictions for the samples that both have; None if they share none."""
        own_m = self.logits_nK[torch.isin(self.index_n, other.index_n)].argmax(dim=1)
        others_m = other.logits_nK[torch.isin(other.index_n, self.index_n)].argmax(dim=1)
        return float((own_m == others_m).double().mean()) if len(own_m) else None


def _predict(network: Network, split: _Split, settings: Project) -> _Predictions:
    blocks = list(
        embed(
            network,
            split.images,
            batch_size=settings.model.embedding_batch,
            dtype=settings.model.embedding_dtype,
            device=device.choose(),
            kept=_kept(network, split.roots, settings),
        )
    )
    index_n = torch.cat([torch.zeros(0, dtype=torch.int64), *(block.index_n for block in blocks)])
    logits_nK = torch.cat([torch.zeros(0, network.head.out_features), *(block.logits_nK for block in blocks)])
    return _Predictions(index_n, logits_nK, split.labels_n[index_n])


def _kept(network: Network, roots: Sequence[str], settings: Project) -> KeptFeatures | None:
    """Return the kept features of a network's encoder; the first of the roots is the project."""
    return kept_features(open_store(roots[0]), layout.FEATURES, network, settings.model, settings.image)


def _predict_champion(folder: Path, split: _Split, settings: Project) -> _Predictions:
    """Return the champion's predictions for the same samples.

    The champion may have an older backbone or image size. It never predicts a class that was added since.
    """
    card = model_folder.read_card(folder)
    if settings.classes[: len(card.classes)] != card.classes:
        raise InputError(
            f"the champion of round {card.round} knows the classes {', '.join(card.classes)}; the project's must begin "
            f"with these, and are {', '.join(settings.classes)}"
        )
    older = settings.model_copy(update={"model": card.model, "image": card.image, "classes": card.classes})
    network, _ = model_folder.load(folder, older)
    predictions = _predict(network, replace(split, images=images(split.table, older, split.roots)), older)
    missing = len(settings.classes) - len(card.classes)
    never_n = predictions.logits_nK.amin(dim=1, keepdim=True) - _NEVER
    return replace(predictions, logits_nK=torch.cat([predictions.logits_nK, never_n.expand(-1, missing)], dim=1))


def _temperature(candidates: Sequence[_Predictions]) -> float:
    """Return the temperature that calibrates the first predictions with samples; 1 if there are none."""
    predictions = next(filter(len, candidates), None)
    return fit_temperature(predictions.logits_nK, predictions.labels_n) if predictions else 1.0


def _proposal(
    record: Round,
    digest: str,
    split: Literal["test", "audit"],
    ours: _Predictions,
    rival: _Predictions | None,
    temperature: float,
) -> Promotion:
    """Return the decision about the champion, with the temperature, which the next round freezes with the champion."""
    metrics, champion_metrics = ours.measure(), rival.measure() if rival else None
    promotion = champion.decide(
        record,
        metrics.summary() if metrics else {},
        champion_metrics.summary() if champion_metrics else {},
        digest,
        recalls=_recalls(metrics, record.settings),
        champion_recalls=_recalls(champion_metrics, record.settings),
        split=split,
    )
    return promotion.model_copy(update={"metrics": {**promotion.metrics, "temperature": temperature}})


def _evaluation(
    record: Round,
    card: ModelCard,
    predictions: Mapping[str, _Predictions],
    agreement: float | None,
    promotion: Promotion,
    temperature: float,
) -> Evaluation:
    classes, test, audit = record.settings.classes, predictions["test"].measure(), predictions["audit"].measure()
    return Evaluation(
        classes=classes,
        metrics=test.summary() if test else {},
        audit=audit.summary() if audit else {},
        agreement=agreement,
        per_class=tuple(
            ClassMetrics(name=name, precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
            for name, one in zip(classes, test.per_class if test else (), strict=False)
        ),
        confusion=test.confusion if test else (),
        promotion=promotion,
        temperature=temperature,
        epochs=card.epochs,
        stopped_because=card.stopped_because,
    )


def _write(evaluated: Evaluation, folder: Path, mistakes_path: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaluation.FILE).write_bytes(evaluated.document())
    if mistakes_path:
        Path(mistakes_path).parent.mkdir(parents=True, exist_ok=True)
        Path(mistakes_path).write_text(mistakes_page(evaluated.classes, evaluated.confusion), "utf-8")


def _recalls(metrics: Metrics | None, settings: Project) -> dict[str, float]:
    """Return the recall of each class that has a sample."""
    if metrics is None:
        return {}
    return {name: one.recall for name, one in zip(settings.classes, metrics.per_class, strict=True) if one.support}
