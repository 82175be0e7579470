"""Score one shard of the pool, and keep what the whole round's choice may need of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from alfamix_core.acquisition.blocks import CUDA_BLOCK_ROWS
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features
from alfamix_core.choosing import batch_rules
from alfamix_core.choosing.decision import load_decision
from alfamix_core.learning import device
from alfamix_core.records.features import SLICE_FILE, SUMS_FILE, read_blocks
from alfamix_core.records.scores import write_scores
from alfamix_core.records.snapshot import read_pool, read_round, shard_range
from alfamix_core.records.stage import StageRun, write_log
from alfamix_core.telemetry.events import Progress
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

_BLOCK_ROWS = CUDA_BLOCK_ROWS  # whole blocks on every device, none of them padded


def run(
    shard: str,
    snapshot_path: str,
    model_path: str,
    labelled_path: str,
    features_path: str,
    scores_path: str,
    block_rows: int = _BLOCK_ROWS,
) -> None:
    """Write the shard's scores.

    Args:
        shard: its name.
        snapshot_path: the round's frozen world.
        model_path: folder of the round's model.
        labelled_path: features of the training samples.
        features_path: of the shard.
        scores_path: folder to be written, see ``records.scores``.
        block_rows: rows in memory at a time; changes nothing but memory.

    Raises:
        InputError: an unknown strategy or parameter, or a feature that is not finite.
    """
    watch = Stopwatch()
    record = read_round(Path(snapshot_path))
    decision = load_decision(record, Path(model_path), Path(labelled_path), device.choose())
    progress = Progress("score", shard, "samples")
    pool = read_pool(Path(snapshot_path))
    positions = shard_range(pool.num_rows, record.shards, int(shard))
    total = len(positions)
    allowed_n = batch_rules.allowed(pool["group"].slice(positions.start, total), record.settings)

    def blocks() -> Iterator[Features]:
        done = 0
        for columns in read_blocks(Path(features_path), block_rows):
            asked_n = allowed_n[columns["positions"] - positions.start]
            # what is all asked stays where it is, in mapped files
            asked = columns if asked_n.all() else {name: column[asked_n] for name, column in columns.items()}
            yield decision.features(asked)
            done += len(asked_n)
            progress(done, total)
        yield decision.no_features()

    scores = score_shard(
        decision.strategy,
        blocks(),
        decision.state,
        batch_rules.reach(record.settings),
        each_class=bool(record.settings.policy.class_shares),
        embeddings=record.settings.policy.min_distance > 0,
    )
    folder = Path(scores_path)
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(folder, scores)
    for name in (SLICE_FILE, SUMS_FILE):
        shutil.copyfile(Path(features_path) / name, folder / name)
    this = StageRun(
        stage="score",
        shard=shard,
        seconds=watch.seconds,
        rows=total,
        peak_memory_bytes=peak_memory_bytes(),
        device=device.name(decision.device),
        gpu_seconds=device.gpu_seconds(decision.device, watch.seconds),
        gpu_peak_memory_bytes=device.gpu_peak_memory_bytes(decision.device),
    )
    write_log(this, consumed=[Path(features_path)], outputs=[folder])
