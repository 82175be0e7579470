"""Compute the columns that the strategy needs for one shard of the pool."""

from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import save_file

from alfamix_core.choosing.decision import strategy_of_round, wanted_columns
from alfamix_core.evaluation import drift
from alfamix_core.learning import device, model_folder
from alfamix_core.learning.embedding import EmbeddedBlock, embed
from alfamix_core.learning.kept_features import kept_features
from alfamix_core.learning.samples import images
from alfamix_core.project import layout
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records.features import SLICE_FILE, SUMS_FILE, FeatureWriter
from alfamix_core.records.project import Project
from alfamix_core.records.snapshot import read_pool, read_roots, read_round, shard_range
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import Progress


def run(shard: str, snapshot_path: str, model_path: str, features_path: str) -> None:
    """Write the shard's features; those of a frozen encoder are kept in the project, and computed once.

    Args:
        shard: Name of the shard.
        snapshot_path: Folder of the round's snapshot.
        model_path: Folder of the round's model.
        features_path: Folder to write, see ``records.features``; it lacks the samples that cannot be read.

    Raises:
        InputError: The model does not have the project's architecture and classes, or an embedding is not finite.
        StorageError: The store of the samples does not answer.
    """
    snapshot, model, folder = Path(snapshot_path), Path(model_path), Path(features_path)
    with StageMeter("embed", shard, consumed=[model], outputs=[folder], device=device.choose()) as meter:
        record = read_round(snapshot)
        settings = record.settings
        pool = read_pool(snapshot)
        positions = shard_range(pool.num_rows, record.shards, int(shard))
        rows = pool.slice(positions.start, len(positions))
        network, card = model_folder.load(model, settings)
        strategy = strategy_of_round(settings, card)
        wanted = wanted_columns(settings, strategy)
        roots = read_roots(snapshot, settings)
        samples = images(rows, settings, roots)
        kept = kept_features(open_store(roots[0]), layout.FEATURES, network, settings.model, settings.image)
        folder.mkdir(parents=True, exist_ok=True)
        writer = FeatureWriter(folder)
        summary = _Summary(rows, network.embedding_size, settings)
        progress = Progress("embed", shard, "samples")
        for block in embed(
            network,
            samples,
            batch_size=settings.model.embedding_batch,
            dtype=settings.model.embedding_dtype,
            device=device.choose(),
            columns=wanted,
            seed=record.seed,
            parameters=strategy.column_parameters(),
            kept=kept,
        ):
            columns = block.columns()
            positions_n = block.index_n + positions.start
            writer.add({"positions": positions_n} | {name: columns[name] for name in sorted(wanted)})
            summary.add(block, positions_n)
            progress(int(block.index_n[-1]) + 1, len(positions))
        writer.close()
        summary.write(folder)
        meter.rows = len(positions)
        meter.add(samples)


class _Summary:
    """What the report needs of a shard: the embeddings of the samples on its map, and the sums for drift."""

    def __init__(self, rows: pa.Table, embedding_size: int, settings: Project) -> None:
        self._on_map_n = torch.tensor(rows["on_map"].to_pylist(), dtype=torch.bool)
        self._new_n = torch.tensor(rows["new"].to_pylist(), dtype=torch.bool)
        self._sums = drift.ShardSums.empty(embedding_size, len(settings.classes))
        self._positions = [torch.zeros(0, dtype=torch.int64)]
        self._embeddings = [torch.zeros(0, embedding_size, dtype=getattr(torch, settings.model.embedding_dtype))]

    def add(self, block: EmbeddedBlock, positions_n: torch.Tensor) -> None:
        """Add a block, whose rows have these positions."""
        on_map_n = self._on_map_n[block.index_n]
        self._positions.append(positions_n[on_map_n])
        self._embeddings.append(block.embeddings_nD[on_map_n])
        self._sums += drift.ShardSums.of(block.embeddings_nD, block.logits_nK, self._new_n[block.index_n])

    def write(self, folder: Path) -> None:
        """Write both files."""
        on_map = {"positions": torch.cat(self._positions), "embeddings": torch.cat(self._embeddings)}
        save_file(on_map, folder / SLICE_FILE)
        save_file(self._sums.to_tensors(), folder / SUMS_FILE)
