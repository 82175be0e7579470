"""Score one shard of the pool, and keep what the choice over the whole pool may need."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from alfamix_core.acquisition.blocks import CUDA_BLOCK_ROWS
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features
from alfamix_core.choosing import batch_rules
from alfamix_core.choosing.decision import Decision, load_decision
from alfamix_core.learning import device
from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records.features import SLICE_FILE, SUMS_FILE, read_blocks
from alfamix_core.records.scores import write_scores
from alfamix_core.records.snapshot import read_pool, read_round, shard_range
from alfamix_core.telemetry.events import Progress

_BLOCK_ROWS = CUDA_BLOCK_ROWS  # a multiple of every device's block, so that none is padded


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
        shard: Name of the shard.
        snapshot_path: Folder of the round's snapshot.
        model_path: Folder of the round's model.
        labelled_path: Folder of the training samples' features.
        features_path: Folder of the shard's features.
        scores_path: Folder to write, see ``records.scores``.
        block_rows: Number of rows in memory at a time; the scores do not depend on it.

    Raises:
        InputError: The strategy or one of its parameters is unknown, or a feature is not finite.
    """
    snapshot, features, folder = Path(snapshot_path), Path(features_path), Path(scores_path)
    with StageMeter("score", shard, consumed=[features], outputs=[folder], device=device.choose()) as meter:
        record = read_round(snapshot)
        decision = load_decision(record, Path(model_path), Path(labelled_path), device.choose())
        pool = read_pool(snapshot)
        positions = shard_range(pool.num_rows, record.shards, int(shard))
        allowed_n = batch_rules.allowed(pool["group"].slice(positions.start, len(positions)), record.settings)
        scores = score_shard(
            decision.strategy,
            _blocks(features, block_rows, positions, allowed_n, decision, Progress("score", shard, "samples")),
            decision.state,
            batch_rules.reach(record.settings),
            each_class=bool(record.settings.policy.class_shares),
            embeddings=record.settings.policy.min_distance > 0,
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(folder, scores)
        for name in (SLICE_FILE, SUMS_FILE):
            shutil.copyfile(features / name, folder / name)
        meter.rows = len(positions)


def _blocks(
    folder: Path, block_rows: int, positions: range, allowed_n: Tensor, decision: Decision, progress: Progress
) -> Iterator[Features]:
    """Yield the features of the samples that may be queried, at least one block, which may be empty."""
    done = 0
    for columns in read_blocks(folder, block_rows):
        asked_n = allowed_n[columns["positions"] - positions.start]
        # a block of which every row may be queried stays in mapped files
        asked = columns if asked_n.all() else {name: column[asked_n] for name, column in columns.items()}
        yield decision.features(asked)
        done += len(asked_n)
        progress(done, len(positions))
    yield decision.no_features()
