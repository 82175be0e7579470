"""Fit the round's model on the labelled samples, and compute their features."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from alfamix_core.learning import device, distributed, model_folder, pixels, scaling
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.checkpoints import Checkpoint, Checkpoints, digest_of
from alfamix_core.learning.distributed import Team
from alfamix_core.learning.embedding import EmbeddedBlock, embed
from alfamix_core.learning.kept_features import kept_features
from alfamix_core.learning.logistic import fit_head
from alfamix_core.learning.network import Network
from alfamix_core.learning.samples import images
from alfamix_core.learning.training import Examples, FitResult, fit
from alfamix_core.learning.weights import apply_initial_weights
from alfamix_core.project import layout
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records.champion import Champion
from alfamix_core.records.features import FeatureWriter
from alfamix_core.records.model import ModelCard
from alfamix_core.records.project import Project
from alfamix_core.records.round import Round
from alfamix_core.records.snapshot import LABELLED_FILE, read_labelled, read_roots, read_round, take
from alfamix_core.storage import SampleReader, Store, open_store
from alfamix_core.telemetry.events import Progress, emit

_CHAMPION = "champion.json"
_WEIGHTS_BYTES = 1 << 36
_CHECKPOINT_FORMAT = 3  # another number where the names of the tensors differ
_UNTRAINED = FitResult(0, (), (), (), "fewer than two classes have a label: the model keeps its initial weights")


def run(snapshot_path: str, champion_path: str, model_path: str, labelled_path: str, project_uri: str = "") -> None:
    """Write the round's model and the features of its training samples.

    If there are several GPUs, they share the training, see ``learning.distributed``. A frozen encoder is not trained:
    the head alone is fitted to its output, see ``learning.logistic``.

    Args:
        snapshot_path: Folder of the round's snapshot.
        champion_path: Folder of champion.json, and of the champion's model if there is one.
        model_path: Folder to write: model.json and model.safetensors.
        labelled_path: Folder to write, see ``records.features``; besides embeddings and logits, it has ``labels`` and
            ``rows``, the row in labelled.parquet.
        project_uri: URI of the project, which holds checkpoints while the round lasts; '' writes none.

    Raises:
        InputError: A setting cannot be followed, such as an unknown backbone.
        StorageError: The store of the samples does not answer.
    """
    # the head of a frozen encoder needs no team
    is_frozen = read_round(Path(snapshot_path)).settings.model.encoder == "frozen"
    count = 1 if is_frozen else distributed.processes()
    model, labelled = Path(model_path), Path(labelled_path)
    meter = StageMeter("train", consumed=[Path(snapshot_path)], outputs=[model, labelled], processes=count)
    with tempfile.TemporaryDirectory() as scratch:
        work = partial(
            _train,
            snapshot=Path(snapshot_path),
            champion=Path(champion_path),
            model=model,
            labelled=labelled,
            project_uri=project_uri,
            scratch=Path(scratch),
            meter=meter,
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
    meter: StageMeter,
) -> None:
    """Do the stage's work as one process of a team, of which the first writes."""
    meter.device = device.choose()
    record = read_round(snapshot)
    train, val = (_Split.read(snapshot, split, record.settings) for split in ("train", "val"))
    network, is_given = _initial_network(record.settings, champion)
    is_trainable = len(set(train.examples.labels_n.tolist())) >= 2
    is_frozen = record.settings.model.encoder == "frozen"
    digest = _identity(record, snapshot, champion, team)
    is_kept = bool(project_uri) and is_trainable and not is_frozen
    checkpoints = _checkpoints(project_uri, record, digest, scratch) if is_kept else None
    begin = checkpoints.find(team) if checkpoints else None
    normalisation = record.settings.image.normalisation
    if begin is None and (normalisation == "data" or (normalisation == "auto" and not is_given and not is_frozen)):
        network.pixels = pixels.of_images(train.examples.images, team)
    result = _UNTRAINED
    if is_frozen:
        result = _fit_head(network, train, record.settings)
    elif is_trainable:
        result = _fit(network, train.examples, val.examples, record, team, checkpoints, begin)
    read = torch.tensor(train.examples.images.bytes_read + val.examples.images.bytes_read)
    meter.bytes_read = sum(int(count) for count in team.gathered(read)[1:])
    if team.rank:
        return
    with meter:
        _write_model(model, network, record, result)
        _write_features(labelled, network, train, record.settings)
        meter.rows = len(train.examples.images)
        meter.add(train.examples.images, val.examples.images)


@dataclass(frozen=True)
class _Split:
    """The labelled samples of one split, with their rows in labelled.parquet (n,) int64, and the project's store."""

    examples: Examples
    rows_n: torch.Tensor
    store: Store

    @staticmethod
    def read(snapshot: Path, name: str, settings: Project) -> "_Split":
        """Return a split of a snapshot, possibly without samples."""
        table = read_labelled(snapshot)
        rows = [row for row, split in enumerate(table["split"].to_pylist()) if split == name]
        samples = take(table, rows)
        labels_n = torch.tensor(samples["label"].to_pylist(), dtype=torch.int64)
        roots = read_roots(snapshot, settings)
        pictures = images(samples, settings, roots, keep=True)
        return _Split(Examples(pictures, labels_n), torch.tensor(rows, dtype=torch.int64), open_store(roots[0]))


def _initial_network(settings: Project, champion: Path) -> tuple[Network, bool]:
    """Return the network from which training starts: the champion, or the same initial weights every round.

    Returns:
        The network, and whether its weights have learned from pixels with a normalisation of their own.
    """
    serving = Champion.parse((champion / _CHAMPION).read_bytes(), _CHAMPION)
    if settings.training.start == "champion" and serving.round is not None:
        network = model_folder.load_grown(champion, settings, settings.seed)
        if settings.image.normalisation in ("imagenet", "half", "numbers"):
            network.pixels = initial(settings.model, settings.image, len(settings.classes), settings.seed).pixels
        return network, True
    network = initial(settings.model, settings.image, len(settings.classes), settings.seed)
    apply_initial_weights(network, settings.model, settings.image, SampleReader(_WEIGHTS_BYTES))
    return network, settings.model.weights != "none"


def _checkpoints(project_uri: str, record: Round, digest: str, scratch: Path) -> Checkpoints:
    folder = layout.run(record.number) + "train/"
    return Checkpoints(open_store(project_uri), folder, digest, record.settings.training.checkpoint_seconds, scratch)


def _identity(record: Round, snapshot: Path, champion: Path, team: Team) -> str:
    """Return a digest of everything that decides the model; the checkpoint of another training must not be resumed."""
    settings = record.settings
    training = settings.training.model_copy(update={"checkpoint_seconds": 0.0, "loader_workers": 0})
    facts = {
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
        "checkpoint": _CHECKPOINT_FORMAT,
        "device": device.choose().type,
        "processes": team.size,
    }
    champion_record = (champion / _CHAMPION).read_bytes() if settings.training.start == "champion" else b""
    return digest_of(
        json.dumps(facts, sort_keys=True).encode(), (snapshot / LABELLED_FILE).read_bytes(), champion_record
    )


def _fit(
    network: Network,
    train: Examples,
    val: Examples,
    record: Round,
    team: Team,
    checkpoints: Checkpoints | None,
    begin: Checkpoint | None,
) -> FitResult:
    """Train the network, from a checkpoint if there is one."""
    if begin is not None and team.rank == 0:
        emit("continued", stage="train", shard="", epoch=begin.course.epochs)
    return fit(
        network,
        train,
        record.settings.training,
        seed=record.seed,
        device=device.choose(),
        val=val,
        progress=Progress("train", "", "epochs") if team.rank == 0 else lambda done, total: None,
        team=team,
        keeper=checkpoints,
        begin=begin,
    )


def _fit_head(network: Network, train: _Split, settings: Project) -> FitResult:
    """Scale the encoder's output, and fit the head to it; both come from the training samples that can be read."""
    network.features = None
    output_nD, _ = _embeddings(network, train, settings)
    network.features = scaling.fitted(settings.model.features, output_nD)
    rows_nD, labels_n = _embeddings(network, train, settings)
    if len(set(labels_n.tolist())) < 2:
        return _UNTRAINED
    head = fit_head(
        rows_nD,
        labels_n,
        len(settings.classes),
        penalty=settings.model.head_penalty,
        balanced=settings.training.class_weights == "balanced",
    )
    with torch.no_grad():
        network.head.weight.copy_(head.weight_KD)
        network.head.bias.copy_(head.bias_K)
    end = "converged" if head.is_converged else "did not converge"
    return FitResult(head.passes, (), (), (), f"the head {end} within {head.passes} passes over the frozen features")


def _embeddings(network: Network, train: _Split, settings: Project) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings (n, D), as they are stored, and the labels (n,) of the samples that can be read."""
    blocks = list(_embedded(network, train, settings))
    index_n = torch.cat([torch.zeros(0, dtype=torch.int64), *(block.index_n for block in blocks)])
    rows = [torch.zeros(0, network.embedding_size), *(block.embeddings_nD for block in blocks)]
    return torch.cat(rows), train.examples.labels_n[index_n]


def _embedded(network: Network, train: _Split, settings: Project) -> Iterator[EmbeddedBlock]:
    return embed(
        network,
        train.examples.images,
        batch_size=settings.model.embedding_batch,
        dtype=settings.model.embedding_dtype,
        device=device.choose(),
        kept=kept_features(train.store, layout.FEATURES, network, settings.model, settings.image),
    )


def _write_model(folder: Path, network: Network, record: Round, result: FitResult) -> None:
    settings = record.settings
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
    folder.mkdir(parents=True, exist_ok=True)
    model_folder.save(folder, network, card)


def _write_features(folder: Path, network: Network, train: _Split, settings: Project) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    writer = FeatureWriter(folder)
    for block in _embedded(network, train, settings):
        columns = {"embeddings": block.embeddings_nD, "logits": block.logits_nK}
        index_n = block.index_n
        writer.add(columns | {"labels": train.examples.labels_n[index_n], "rows": train.rows_n[index_n]})
    writer.close()
