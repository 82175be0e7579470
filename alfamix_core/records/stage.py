"""stage.json: the runs of a stage and of those before it, and the quarantined samples."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from alfamix_core.records.record import Record
from alfamix_core.records.round import StageMeasures, StageTotal

FILE = "stage.json"


class Quarantined(Record):
    """A sample that could not be read."""

    sample_id: str = Field(description="id of the sample")
    uri: str = Field(description="absolute URI of the sample")
    reason: str = Field(description="human-readable reason")


class StageRun(StageMeasures):
    """One run of one stage."""

    stage: str = Field(description="name of the stage")
    shard: str = Field("", description="shard of the stage; empty if it has none")
    device: str = Field("", description="cpu or the GPU's name, if a model ran")


class StageLog(Record):
    """The whole of stage.json: this stage last, after those whose output it consumed."""

    runs: tuple[StageRun, ...] = Field(description="runs of the stages and shards")
    quarantined: tuple[Quarantined, ...] = Field((), description="samples that could not be read")

    def write(self, folder: Path) -> None:
        """Write stage.json into an output folder."""
        (folder / FILE).write_bytes(self.document())


def read_logs(folders: list[Path]) -> StageLog:
    """Return the logs of several folders as one: each run and each sample once, in order of stage and shard."""
    logs = [StageLog.parse((folder / FILE).read_bytes(), str(folder / FILE)) for folder in folders]
    runs = {(run.stage, run.shard): run for log in logs for run in log.runs}
    quarantined = {sample.sample_id: sample for log in logs for sample in log.quarantined}
    return StageLog(
        runs=tuple(runs.values()),
        quarantined=tuple(quarantined[key] for key in sorted(quarantined)),
    )


def write_log(
    run: StageRun, *, consumed: Sequence[Path], outputs: Sequence[Path], quarantined: Iterable[Quarantined] = ()
) -> None:
    """Write a stage's log into each of its output folders.

    Args:
        run: Run of the stage.
        consumed: Folders that it read, whose logs go before its own.
        outputs: Folders that it wrote.
        quarantined: Samples that it could not read; one that is known already counts once.
    """
    before = read_logs(list(consumed)) if consumed else StageLog(runs=())
    bad = {sample.sample_id: sample for sample in (*before.quarantined, *quarantined)}
    log = StageLog(runs=(*before.runs, run), quarantined=tuple(bad[key] for key in sorted(bad)))
    for folder in outputs:
        log.write(folder)


def totals(runs: Iterable[StageRun], attempts: Mapping[tuple[str, str], int]) -> dict[str, StageTotal]:
    """Return the totals of each stage.

    Args:
        runs: Runs of all stages and shards.
        attempts: Number of starts by stage and shard; unknown ones were started once.
    """
    by_stage: dict[str, list[StageRun]] = defaultdict(list)
    for run in runs:
        by_stage[run.stage].append(run)
    return {
        stage: StageTotal(
            seconds=round(sum(run.seconds for run in shards), 3),
            rows=sum(run.rows for run in shards),
            bytes_read=sum(run.bytes_read for run in shards),
            peak_memory_bytes=max(run.peak_memory_bytes for run in shards),
            gpu_seconds=round(sum(run.gpu_seconds for run in shards), 3),
            gpu_peak_memory_bytes=max(run.gpu_peak_memory_bytes for run in shards),
            retries=sum(max(attempts.get((stage, run.shard), 1), 1) - 1 for run in shards),
        )
        for stage, shards in by_stage.items()
    }
