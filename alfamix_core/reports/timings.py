"""The time of each stage, with its shards combined."""

from collections.abc import Sequence
from dataclasses import dataclass

from alfamix_core.records.stage import StageRun


@dataclass(frozen=True)
class StageTime:
    """One stage of a round.

    Attributes:
        stage: Name of the stage.
        shards: Number of its shards.
        seconds: Time in seconds, summed over its shards.
        slowest: Time of its slowest shard in seconds, for which the round waits if all shards run in parallel.
        rows: Number of samples processed, summed over its shards.
        peak_memory_bytes: Greatest peak memory of a shard, in bytes.
        device: Devices on which it ran, separated by commas; may be empty.
        share: ``seconds`` in percent of the longest stage's.
        slowest_share: ``slowest`` in percent of the longest stage's ``seconds``.
    """

    stage: str
    shards: int
    seconds: float
    slowest: float
    rows: int
    peak_memory_bytes: int
    device: str
    share: float
    slowest_share: float


def stage_times(runs: Sequence[StageRun]) -> list[StageTime]:
    """Return one row per stage, in the order in which the stages first appear."""
    stages: dict[str, list[StageRun]] = {}
    for run in runs:
        stages.setdefault(run.stage, []).append(run)
    longest = max((sum(run.seconds for run in shards) for shards in stages.values()), default=0.0) or 1.0
    return [
        StageTime(
            stage=stage,
            shards=len(shards),
            seconds=sum(run.seconds for run in shards),
            slowest=max(run.seconds for run in shards),
            rows=sum(run.rows for run in shards),
            peak_memory_bytes=max(run.peak_memory_bytes for run in shards),
            device=", ".join(sorted({run.device for run in shards if run.device})),
            share=round(100 * sum(run.seconds for run in shards) / longest, 2),
            slowest_share=round(100 * max(run.seconds for run in shards) / longest, 2),
        )
        for stage, shards in stages.items()
    ]
