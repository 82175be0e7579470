"""What each stage took, its shards taken together."""

from collections.abc import Sequence
from dataclasses import dataclass

from alfamix_core.records.stage import StageRun


@dataclass(frozen=True)
class StageTime:
    """One stage of a round.

    Attributes:
        seconds: summed over its shards.
        slowest: of its slowest shard: what the round waited for when all run at once.
        rows: samples it worked on, over all shards.
        peak_memory_bytes: of the shard that needed most.
        share: of the slowest stage's seconds, percent.
        slowest_share: likewise, of ``slowest``.
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
    """Return one row a stage, in the order in which the stages first appear."""
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
