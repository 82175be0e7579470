"""Measure the round's model on the test split, keep it in the project, and propose whether it is promoted."""

from collections.abc import Sequence
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
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.project import champion, lock, models
from alfamix_core.records import evaluation
from alfamix_core.records.evaluation import ClassMetrics, Evaluation
from alfamix_core.records.project import Project
from alfamix_core.records.snapshot import read_labelled, read_roots, read_round
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.reports.confusion import mistakes_page
from alfamix_core.storage import open_store
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_SPLITS: tuple[Literal["test", "audit"], ...] = ("test", "audit")
MANY_CLASSES = 100
"""Number of classes from which Kubeflow gets no confusion matrix: it grows with their square, in the API's database."""
_CALIBRATION = "val"  # labels that neither train the weights nor judge the model
_NEVER = 1e4  # below every other logit, and still finite


def run(
    project_uri: str,
    run_id: str,
    snapshot_path: str,
    champion_path: str,
    model_path: str,
    evaluation_path: str,
    mistakes_path: str = "",
) -> Evaluation:
    """Write evaluation.json, with what is proposed about the champion; copy the model to ``models/<digest>/``.

    No record of the project changes: the proposal counts once ``export`` commits the round.

    Args:
        project_uri: of the project.
        run_id: of this run, which must hold the project's lock.
        snapshot_path: the round's frozen world.
        champion_path: the champion that was frozen in the round.
        model_path: folder of the round's model.
        evaluation_path: folder to be written; evaluation.json has the whole confusion matrix.
        mistakes_path: file to be written: the most frequent mistakes as a Markdown table; '' for none.

    Returns:
        What was written.

    Raises:
        InputError: a model is not of the project's architecture or classes.
        LockedError: another run has taken the project over.
        StorageError: the store does not answer.
    """
    watch = Stopwatch()
    place = device.choose()
    snapshot, model = Path(snapshot_path), Path(model_path)
    record = read_round(snapshot)
    settings = record.settings
    network, card = model_folder.load(model, settings)
    splits = {name: _split(snapshot, name) for name in (*_SPLITS, _CALIBRATION)}
    roots = read_roots(snapshot, settings)
    samples = {name: images(split.table, settings, roots) for name, split in splits.items()}
    found = {name: _predict(network, samples[name], splits[name], settings, place) for name in splits}
    metrics = {name: found[name].measure() for name in _SPLITS}
    temperature = _temperature([found[name] for name in (_CALIBRATION, *_SPLITS)])
    compared: Literal["test", "audit"] = "test" if metrics["test"] is not None else "audit"
    ours, theirs, agreement = metrics[compared], None, None
    if record.champion.round is not None and ours is not None:
        rival = _predict_champion(Path(champion_path), splits[compared], settings, roots, place)
        theirs, agreement = rival.measure(), found[compared].agreement(rival)
    store, now = open_store(project_uri), datetime.now(UTC)
    lock.renew(store, run_id, now, now + timedelta(hours=settings.round.max_hours))
    promotion = champion.decide(
        record,
        ours.summary() if ours else {},
        theirs.summary() if theirs else {},
        models.upload(store, model) if card.trained else "",
        recalls=_recalls(ours, settings),
        champion_recalls=_recalls(theirs, settings),
        split=compared,
    )
    # frozen with the champion in the next round, whose strategy may need it
    promotion = promotion.model_copy(update={"metrics": {**promotion.metrics, "temperature": temperature}})
    test, audit = metrics["test"], metrics["audit"]
    evaluated = Evaluation(
        classes=settings.classes,
        metrics=test.summary() if test else {},
        audit=audit.summary() if audit else {},
        agreement=agreement,
        per_class=tuple(
            ClassMetrics(name=name, precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
            for name, one in zip(settings.classes, test.per_class if test else (), strict=False)
        ),
        confusion=test.confusion if test else (),
        promotion=promotion,
        temperature=temperature,
        epochs=card.epochs,
        stopped_because=card.stopped_because,
    )
    folder = Path(evaluation_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaluation.FILE).write_bytes(evaluated.document())
    if mistakes_path:
        Path(mistakes_path).parent.mkdir(parents=True, exist_ok=True)
        Path(mistakes_path).write_text(mistakes_page(evaluated.classes, evaluated.confusion), "utf-8")
    this = StageRun(
        stage="evaluate",
        seconds=watch.seconds,
        rows=sum(len(part) for part in samples.values()),
        bytes_read=sum(part.bytes_read for part in samples.values()),
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(place),
        gpu_seconds=device.gpu_seconds(place, watch.seconds),
        gpu_peak_memory_bytes=device.gpu_peak_memory_bytes(place),
    )
    bad = [sample for part in samples.values() for sample in part.quarantined()]
    write_log(this, consumed=[model], outputs=[folder], quarantined=bad)
    return evaluated


@dataclass(frozen=True)
class _Split:
    """The labelled samples of one split: table and labels_n (n,) int64."""

    table: pa.Table
    labels_n: torch.Tensor


def _split(snapshot: Path, name: str) -> _Split:
    table = read_labelled(snapshot, name)
    return _Split(table, torch.tensor(table["label"].to_pylist(), dtype=torch.int64))


@dataclass(frozen=True)
class _Predictions:
    """What a model says of the readable samples of a split: index_n and labels_n (n,) int64, logits_nK (n, K)."""

    index_n: torch.Tensor
    logits_nK: torch.Tensor
    labels_n: torch.Tensor

    def measure(self) -> Metrics | None:
        """Return the metrics, or None where there is no sample."""
        return measure(self.logits_nK, self.labels_n)

    def agreement(self, other: "_Predictions") -> float | None:
        """Return the share of the samples that both could read of which both say the same; None where there is none."""
        ours_m = self.logits_nK[torch.isin(self.index_n, other.index_n)].argmax(dim=1)
        theirs_m = other.logits_nK[torch.isin(other.index_n, self.index_n)].argmax(dim=1)
        return float((ours_m == theirs_m).double().mean()) if len(ours_m) else None


def _temperature(found: Sequence[_Predictions]) -> float:
    """Return the temperature that calibrates the first that has samples; 1 if none has."""
    labelled = (predictions for predictions in found if len(predictions.labels_n))
    return next((fit_temperature(each.logits_nK, each.labels_n) for each in labelled), 1.0)


def _predict(
    network: Network, samples: SampleImages, split: _Split, settings: Project, place: torch.device
) -> _Predictions:
    blocks = list(
        embed(
            network,
            samples,
            batch_size=settings.model.embedding_batch,
            dtype=settings.model.embedding_dtype,
            device=place,
        )
    )
    index_n = torch.cat([torch.zeros(0, dtype=torch.int64), *(block.index_n for block in blocks)])
    logits_nK = torch.cat([torch.zeros(0, network.head.out_features), *(block.logits_nK for block in blocks)])
    return _Predictions(index_n, logits_nK, split.labels_n[index_n])


def _predict_champion(
    folder: Path, split: _Split, settings: Project, roots: Sequence[str], place: torch.device
) -> _Predictions:
    """Return the champion's predictions on the same samples.

    Its backbone and image size may be older settings. A class that was added to the project since is one that it never
    predicts.
    """
    card = model_folder.read_card(folder)
    its_own = settings.model_copy(update={"model": card.model, "image": card.image, "classes": card.classes})
    network, _ = model_folder.load(folder, its_own)
    found = _predict(network, images(split.table, its_own, roots), split, its_own, place)
    if settings.classes[: len(card.classes)] != card.classes:
        raise InputError(
            f"the champion of round {card.round} knows the classes {', '.join(card.classes)}; the project's must begin "
            f"with these, and are {', '.join(settings.classes)}"
        )
    missing = len(settings.classes) - len(card.classes)
    never_n = found.logits_nK.amin(dim=1, keepdim=True) - _NEVER
    return replace(found, logits_nK=torch.cat([found.logits_nK, never_n.expand(-1, missing)], dim=1))


def _recalls(metrics: Metrics | None, settings: Project) -> dict[str, float]:
    """Return the recall of each class that has a sample."""
    if metrics is None:
        return {}
    return {name: one.recall for name, one in zip(settings.classes, metrics.per_class, strict=True) if one.support}
