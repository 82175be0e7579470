"""Measure the round's model on the test split, and promote it if it passes the gate."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import torch

from alfamix_core.evaluation.metrics import Metrics, measure
from alfamix_core.learning import device, model_folder
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.decision import read_card
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.project import champion, layout, lock
from alfamix_core.records import evaluation
from alfamix_core.records.evaluation import ClassMetrics, Evaluation
from alfamix_core.records.project import Project
from alfamix_core.records.round import number_of
from alfamix_core.records.snapshot import read_labelled, read_round
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.storage import Store, open_store
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes


def run(
    project_uri: str,
    key: str,
    run_id: str,
    snapshot_path: str,
    champion_path: str,
    model_path: str,
    evaluation_path: str,
) -> Evaluation:
    """Write evaluation.json, decide about the champion once, and apply the decision.

    Args:
        project_uri: of the project.
        key: of the round.
        run_id: of this run, which must hold the project's lock.
        snapshot_path: the round's frozen world.
        champion_path: the champion that was frozen in the round.
        model_path: folder of the round's model.
        evaluation_path: folder to be written.

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
    test, audit = _split(snapshot, "test"), _split(snapshot, "audit")
    samples = {name: images(split.table, settings) for name, split in (("test", test), ("audit", audit))}
    ours = _measure(network, samples["test"], test.labels_n, settings, place)
    on_audit = _measure(network, samples["audit"], audit.labels_n, settings, place)
    theirs = None
    if record.champion.round is not None and ours is not None:
        theirs = _measure_champion(Path(champion_path), test, settings, place)
    store, number = open_store(project_uri), number_of(key)
    promotion = champion.decide(
        record, ours.summary() if ours else {}, theirs.summary() if theirs else {}, card.trained
    )
    now = datetime.now(UTC)
    fence = lock.renew(store, run_id, now, now + timedelta(hours=settings.round.max_hours)).fence
    promotion = champion.record_decision(store, number, promotion)
    if promotion.promoted:
        _copy_model(store, model, layout.model(number))
        champion.promote(store, number, promotion.metrics, fence)
    found = Evaluation(
        classes=settings.classes,
        metrics=ours.summary() if ours else {},
        audit=on_audit.summary() if on_audit else {},
        per_class=tuple(
            ClassMetrics(name=name, precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
            for name, one in zip(settings.classes, ours.per_class if ours else (), strict=False)
        ),
        confusion=ours.confusion if ours else (),
        promotion=promotion,
        epochs=card.epochs,
        stopped_because=card.stopped_because,
    )
    folder = Path(evaluation_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaluation.FILE).write_bytes(found.document())
    this = StageRun(
        stage="evaluate",
        seconds=watch.seconds,
        rows=sum(len(part) for part in samples.values()),
        bytes_read=sum(part.bytes_read for part in samples.values()),
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(place),
    )
    bad = [sample for part in samples.values() for sample in part.quarantined()]
    write_log(this, consumed=[model], outputs=[folder], quarantined=bad)
    return found


@dataclass(frozen=True)
class _Split:
    """The labelled samples of one split: table and labels_n (n,) int64."""

    table: pa.Table
    labels_n: torch.Tensor


def _split(snapshot: Path, name: str) -> _Split:
    table = read_labelled(snapshot, name)
    return _Split(table, torch.tensor(table["label"].to_pylist(), dtype=torch.int64))


def _measure(
    network: Network, samples: SampleImages, labels_n: torch.Tensor, settings: Project, place: torch.device
) -> Metrics | None:
    """Return the metrics on the samples that can be read."""
    blocks = list(
        embed(
            network,
            samples,
            batch_size=settings.model.embedding_batch,
            dtype=settings.model.embedding_dtype,
            device=place,
        )
    )
    if not blocks:
        return None
    index_n = torch.cat([block.index_n for block in blocks])
    return measure(torch.cat([block.logits_nK for block in blocks]), labels_n[index_n])


def _measure_champion(folder: Path, split: _Split, settings: Project, place: torch.device) -> Metrics | None:
    """Return the champion's metrics on the same samples; its backbone and image size may be older settings."""
    card = read_card(folder)
    its_own = settings.model_copy(update={"model": card.model, "image": card.image})
    network, _ = model_folder.load(folder, its_own)
    return _measure(network, images(split.table, its_own), split.labels_n, its_own, place)


def _copy_model(store: Store, model: Path, prefix: str) -> None:
    """Copy a model's files into the project, once."""
    for path in sorted(model.iterdir()):
        if path.name.startswith("model."):
            store.create_from(prefix + path.name, path)
