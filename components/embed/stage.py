"""Compute the columns that the strategy needs for one shard of the pool."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from alfamix_core.choosing.decision import strategy_of_round, wanted_columns
from alfamix_core.evaluation import drift
from alfamix_core.learning import device, model_folder
from alfamix_core.learning.embedding import embed
from alfamix_core.learning.samples import images
from alfamix_core.records.features import SLICE_FILE, SUMS_FILE, FeatureWriter
from alfamix_core.records.snapshot import read_pool, read_roots, read_round, shard_range
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.telemetry import overhead
from alfamix_core.telemetry.events import Progress
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes


def run(shard: str, snapshot_path: str, model_path: str, features_path: str) -> None:
    """Write the shard's features.

    Args:
        shard: its name.
        snapshot_path: the round's frozen world.
        model_path: folder of the round's model.
        features_path: folder to be written, see ``records.features``. Samples that cannot be read are not in it.

    Raises:
        InputError: the model is not of the project's architecture or classes, or an embedding is not finite.
        StorageError: the store of the samples does not answer.
    """
    watch = Stopwatch()
    place = device.choose()
    snapshot, model, folder = Path(snapshot_path), Path(model_path), Path(features_path)
    record = read_round(snapshot)
    settings = record.settings
    pool = read_pool(snapshot)
    positions = shard_range(pool.num_rows, record.shards, int(shard))
    rows = pool.slice(positions.start, len(positions))
    on_map_n = torch.tensor(rows["on_map"].to_pylist(), dtype=torch.bool)
    new_n = torch.tensor(rows["new"].to_pylist(), dtype=torch.bool)
    samples = images(rows, settings, read_roots(snapshot, settings))
    network, card = model_folder.load(model, settings)
    strategy = strategy_of_round(settings, card)
    wanted = wanted_columns(settings, strategy)
    folder.mkdir(parents=True, exist_ok=True)
    writer = FeatureWriter(folder)
    progress = Progress("embed", shard, "samples")
    sums = drift.ShardSums.empty(network.embedding_size, len(settings.classes))
    kept_positions = [torch.zeros(0, dtype=torch.int64)]
    kept_embeddings = [torch.zeros(0, network.embedding_size, dtype=getattr(torch, settings.model.embedding_dtype))]
    for block in embed(
        network,
        samples,
        batch_size=settings.model.embedding_batch,
        dtype=settings.model.embedding_dtype,
        device=place,
        columns=wanted,
        seed=record.seed,
        parameters=strategy.column_parameters(),
    ):
        positions_n = block.index_n + positions.start
        columns = block.columns()
        writer.add({"positions": positions_n} | {name: columns[name] for name in sorted(wanted)})
        chosen_n = on_map_n[block.index_n]
        kept_positions.append(positions_n[chosen_n])
        kept_embeddings.append(block.embeddings_nD[chosen_n])
        with overhead.counted():
            sums += drift.ShardSums.of(block.embeddings_nD, block.logits_nK, new_n[block.index_n])
        progress(int(block.index_n[-1]) + 1, len(positions))
    writer.close()
    on_map = {"positions": torch.cat(kept_positions), "embeddings": torch.cat(kept_embeddings)}
    save_file(on_map, folder / SLICE_FILE)
    save_file(sums.to_tensors(), folder / SUMS_FILE)
    this = StageRun(
        stage="embed",
        shard=shard,
        seconds=watch.seconds,
        rows=len(positions),
        bytes_read=samples.bytes_read,
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(place),
        gpu_seconds=device.gpu_seconds(place, watch.seconds),
        gpu_peak_memory_bytes=device.gpu_peak_memory_bytes(place),
    )
    write_log(this, consumed=[model], outputs=[folder], quarantined=samples.quarantined())
