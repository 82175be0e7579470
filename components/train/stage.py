"""Fit the round's model on the labelled samples, and compute their features."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch

from alfamix_core.learning import device, distributed, model_folder
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.checkpoints import Checkpoints, digest_of
from alfamix_core.learning.distributed import Team
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.learning.training import Examples, FitResult, fit
from alfamix_core.learning.weights import apply_initial_weights
from alfamix_core.project import layout
from alfamix_core.records.champion import Champion
from alfamix_core.records.features import FeatureWriter
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.round import Round
from alfamix_core.records.snapshot import LABELLED_FILE, read_labelled, read_roots, read_round, take
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.storage import SampleReader, open_store
from alfamix_core.telemetry.events import Progress, emit
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_CHAMPION = "champion.json"
_WEIGHTS_BYTES = 1 << 36
_UNTRAINED = FitResult(0, (), (), (), "fewer than two classes have a label: the model keeps its initial weights")


def run(snapshot_path: str, champion_path: str, model_path: str, labelled_path: str, project_uri: str = "") -> None:
    """Write the round's model and the features of its training samples.

    Where there are several GPUs the training is divided among them, see ``learning.distributed``.

    Args:
        snapshot_path: the round's frozen world.
        champion_path: champion.json, and the champion's model if there is one.
        model_path: folder to be written: model.json, model.safetensors.
        labelled_path: folder to be written, see ``records.features``; besides embeddings and logits, ``labels`` and
            ``rows``, the row in labelled.parquet.
        project_uri: where checkpoints of the training are kept while the round lasts; '' for none.

    Raises:
        InputError: settings that cannot be followed, such as an unknown backbone.
        StorageError: the store of the samples does not answer.
    """
    watch = Stopwatch()
    count = distributed.processes()
    with tempfile.TemporaryDirectory() as scratch:
        work = partial(
            _train,
            snapshot=Path(snapshot_path),
            champion=Path(champion_path),
            model=Path(model_path),
            labelled=Path(labelled_path),
            project_uri=project_uri,
            scratch=Path(scratch),
            watch=watch,
        )
        if count == 1:
            work(distributed.ALONE)
        else:
            distributed.launch(count, work)


def _train(
    team: Team,
    *,
    snapshot: Path,
    champion: Path,
    model: Path,
    labelled: Path,
    project_uri: str,
    scratch: Path,
    watch: Stopwatch,
) -> None:
    """Do the stage's work as one process of a team, of which the first writes."""
    place = device.choose()
    record = read_round(snapshot)
    settings = record.settings
    table = read_labelled(snapshot)
    rows_of = {split: _rows_of(table["split"].to_pylist(), split) for split in ("train", "val")}
    roots = read_roots(snapshot, settings)
    examples = {split: _examples(take(table, rows.tolist()), settings, roots) for split, rows in rows_of.items()}
    train = examples["train"]
    network = _start(settings, champion, record.settings.seed)
    if len(set(train.labels_n.tolist())) >= 2:
        checkpoints = None
        if project_uri:
            checkpoints = Checkpoints(
                open_store(project_uri),
                layout.run(record.number) + "train/",
                _identity(record, snapshot, champion, place, team),
                settings.training.checkpoint_seconds,
                scratch,
            )
        begin = checkpoints.find(team) if checkpoints else None
        if begin is not None and team.rank == 0:
            emit("continued", stage="train", shard="", epoch=begin.course.epochs)
        result = fit(
            network,
            train,
            settings.training,
            frozen_encoder=settings.model.encoder == "frozen",
            seed=record.seed,
            device=place,
            val=examples["val"],
            progress=Progress("train", "", "epochs") if team.rank == 0 else _untold,
            team=team,
            keeper=checkpoints,
            begin=begin,
        )
    else:
        result = _UNTRAINED
    bytes_read = sum(part.images.bytes_read for part in examples.values())
    bytes_read_of_others = sum(int(each) for each in team.gathered(torch.tensor(bytes_read))[1:])
    if team.rank:
        return
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
        bytes_read=sum(part.images.bytes_read for part in examples.values()) + bytes_read_of_others,
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(place),
        gpu_seconds=device.gpu_seconds(place, watch.seconds, team.size),
        gpu_peak_memory_bytes=device.gpu_peak_memory_bytes(place),
    )
    bad = [sample for part in examples.values() for sample in part.images.quarantined()]
    write_log(this, consumed=[snapshot], outputs=[model, labelled], quarantined=bad)


def _identity(record: Round, snapshot: Path, champion: Path, place: torch.device, team: Team) -> str:
    """Return a digest of all that decides the model; a checkpoint of something else must not be gone on from."""
    settings = record.settings
    training = settings.training.model_copy(update={"checkpoint_seconds": 0.0, "loader_workers": 0})
    said = {
        "round": record.number,
        "fresh": record.fresh,
        "seed": record.seed,
        "project_seed": settings.seed,
        "classes": settings.classes,
        "image": settings.image.model_dump(),
        "model": settings.model.model_dump(),
        "limits": settings.limits.model_dump(),
        "training": training.model_dump(),
        "torch": torch.__version__,
        "device": place.type,
        "processes": team.size,
    }
    champion_record = (champion / _CHAMPION).read_bytes() if settings.training.start == "champion" else b""
    return digest_of(
        json.dumps(said, sort_keys=True).encode(), (snapshot / LABELLED_FILE).read_bytes(), champion_record
    )


def _untold(done: int, total: int) -> None:
    """Leave the progress to the first process."""


def _rows_of(splits: list[str], split: str) -> torch.Tensor:
    return torch.tensor([row for row, name in enumerate(splits) if name == split], dtype=torch.int64)


def _examples(rows: pa.Table, settings: Project, roots: Sequence[str]) -> Examples:
    labels_n = torch.tensor(rows["label"].to_pylist(), dtype=torch.int64)
    return Examples(images(rows, settings, roots, keep=True), labels_n)


def _start(settings: Project, champion: Path, seed: int) -> Network:
    """Return the network that training begins with: the champion, or the same initial weights every round."""
    serving = Champion.parse((champion / _CHAMPION).read_bytes(), _CHAMPION)
    if settings.training.start == "champion" and serving.round is not None:
        return model_folder.load_grown(champion, settings, seed)
    network = initial(settings.model, settings.image, len(settings.classes), seed)
    apply_initial_weights(network, settings.model, SampleReader(_WEIGHTS_BYTES))
    return network
