"""Fit the round's model on the labelled samples, and compute their features."""

from pathlib import Path

import pyarrow as pa
import torch

from alfamix_core.learning import device, model_folder
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.learning.training import Examples, FitResult, fit
from alfamix_core.learning.weights import apply_initial_weights
from alfamix_core.records.champion import Champion
from alfamix_core.records.features import FeatureWriter
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.snapshot import read_labelled, read_round, take
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.storage import SampleReader
from alfamix_core.telemetry.events import Progress
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_CHAMPION = "champion.json"
_WEIGHTS_BYTES = 1 << 36
_UNTRAINED = FitResult(0, (), (), (), "fewer than two classes have a label: the model keeps its initial weights")


def run(snapshot_path: str, champion_path: str, model_path: str, labelled_path: str) -> None:
    """Write the round's model and the features of its training samples.

    Args:
        snapshot_path: the round's frozen world.
        champion_path: champion.json, and the champion's model if there is one.
        model_path: folder to be written: model.json, model.safetensors.
        labelled_path: folder to be written, see ``records.features``; besides embeddings and logits, ``labels`` and
            ``rows``, the row in labelled.parquet.

    Raises:
        InputError: settings that cannot be followed, such as an unknown backbone.
        StorageError: the store of the samples does not answer.
    """
    watch = Stopwatch()
    place = device.choose()
    snapshot, model, labelled = Path(snapshot_path), Path(model_path), Path(labelled_path)
    record = read_round(snapshot)
    settings = record.settings
    table = read_labelled(snapshot)
    rows_of = {split: _rows_of(table["split"].to_pylist(), split) for split in ("train", "val")}
    examples = {split: _examples(take(table, rows.tolist()), settings) for split, rows in rows_of.items()}
    train = examples["train"]
    network = _start(settings, Path(champion_path), record.settings.seed)
    if len(set(train.labels_n.tolist())) >= 2:
        result = fit(
            network,
            train,
            settings.training,
            frozen_encoder=settings.model.encoder == "frozen",
            seed=record.seed,
            device=place,
            val=examples["val"],
            progress=Progress("train", "", "epochs"),
        )
    else:
        result = _UNTRAINED
    card = ModelCard(
        classes=settings.classes,
        model=settings.model,
        image=settings.image,
        embedding_size=network.embedding_size,
        round=record.number,
        trained=result.epochs > 0,
        epochs=result.epochs,
        stopped_because=result.stopped_because,
    )
    model.mkdir(parents=True, exist_ok=True)
    model_folder.save(model, network, card)
    labelled.mkdir(parents=True, exist_ok=True)
    writer = FeatureWriter(labelled)
    for block in embed(
        network,
        train.images,
        batch_size=settings.model.embedding_batch,
        dtype=settings.model.embedding_dtype,
        device=place,
    ):
        columns = {"embeddings": block.embeddings_nD, "logits": block.logits_nK}
        index_n = block.index_n
        writer.add(columns | {"labels": train.labels_n[index_n], "rows": rows_of["train"][index_n]})
    writer.close()
    this = StageRun(
        stage="train",
        seconds=watch.seconds,
        rows=len(train.images),
        bytes_read=sum(part.images.bytes_read for part in examples.values()),
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(place),
    )
    bad = [sample for part in examples.values() for sample in part.images.quarantined()]
    write_log(this, consumed=[snapshot], outputs=[model, labelled], quarantined=bad)


def _rows_of(splits: list[str], split: str) -> torch.Tensor:
    return torch.tensor([row for row, name in enumerate(splits) if name == split], dtype=torch.int64)


def _examples(rows: pa.Table, settings: Project) -> Examples:
    labels_n = torch.tensor(rows["label"].to_pylist(), dtype=torch.int64)
    return Examples(images(rows, settings, keep=True), labels_n)


def _start(settings: Project, champion: Path, seed: int) -> Network:
    """Return the network that training begins with: the champion, or the same initial weights every round."""
    serving = Champion.parse((champion / _CHAMPION).read_bytes(), _CHAMPION)
    if settings.training.start == "champion" and serving.round is not None:
        return model_folder.load_grown(champion, settings, seed)
    network = initial(settings.model, settings.image, len(settings.classes), seed)
    apply_initial_weights(network, settings.model, SampleReader(_WEIGHTS_BYTES))
    return network
