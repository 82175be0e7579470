"""What one run of a stage cost: time, memory, samples read and GPU, written into the stage's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from alfamix_core.records.stage import Quarantined, StageRun, write_log
from alfamix_core.telemetry.measures import Stopwatch, peak_memory_bytes

if TYPE_CHECKING:
    import torch


class SamplesRead(Protocol):
    """Samples that a stage read, in part or as a whole."""

    @property
    def bytes_read(self) -> int:
        """Number of bytes read from files."""
        ...

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Return the samples that could not be read."""
        ...


class StageMeter:
    """Measures one run of a stage from its creation on; at the end of its block, it writes stage.json.

    A block that raises writes nothing. The meter can be pickled, so that another process may finish the run.

    Attributes:
        rows: Number of samples that the stage worked on.
        bytes_read: Number of bytes of samples that the stage read.
        device: Device on which a model ran; None if none did.
        processes: Number of processes, each with its own GPU if there are GPUs.
    """

    def __init__(
        self,
        stage: str,
        shard: str = "",
        *,
        consumed: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        device: torch.device | None = None,
        processes: int = 1,
    ) -> None:
        """Start to measure.

        Args:
            stage: Name of the stage.
            shard: Name of the shard; '' if the stage is not fanned out.
            consumed: Input folders, whose logs precede this run's.
            outputs: Output folders, each of which gets the log.
            device: Device on which a model runs, if one does.
            processes: Number of processes of the stage.
        """
        self.rows = 0
        self.bytes_read = 0
        self.device = device
        self.processes = processes
        self._stage = stage
        self._shard = shard
        self._consumed = tuple(consumed)
        self._outputs = tuple(outputs)
        self._quarantined: list[Quarantined] = []
        self._watch = Stopwatch()

    def add(self, *samples: SamplesRead) -> None:
        """Add the bytes and the unreadable samples of what the stage has read."""
        for part in samples:
            self.bytes_read += part.bytes_read
            self._quarantined += part.quarantined()

    def measured(self) -> StageRun:
        """Return the measurements so far."""
        seconds = self._watch.seconds
        gpu: dict[str, Any] = {}
        if self.device is not None:
            # the images of stages without a model have no torch
            from alfamix_core.learning import device

            gpu = {
                "device": device.name(self.device),
                "gpu_seconds": device.gpu_seconds(self.device, seconds, self.processes),
                "gpu_peak_memory_bytes": device.gpu_peak_memory_bytes(self.device),
            }
        return StageRun(
            stage=self._stage,
            shard=self._shard,
            seconds=seconds,
            rows=self.rows,
            bytes_read=self.bytes_read,
            peak_memory_bytes=peak_memory_bytes(),
            **gpu,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._outputs:
            write_log(self.measured(), consumed=self._consumed, outputs=self._outputs, quarantined=self._quarantined)
