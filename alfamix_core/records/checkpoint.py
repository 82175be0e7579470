"""rounds/<n>/run/train/checkpoint.json: which file of tensors an unfinished training goes on from."""

from pydantic import Field

from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.record import Record


class Unreadable(Record):
    """A sample that could not be read, by its place in a split's list."""

    index: int = Field(ge=0)
    reason: str


class Course(Record):
    """How far a training is: what it has measured, epoch by epoch, and what it has found unreadable."""

    pixels: PixelStatistics = Field(description="normalisation of the pixels with which the training began")
    losses: tuple[float, ...] = Field((), description="mean over the samples of each epoch")
    accuracies: tuple[float, ...] = Field((), description="of each epoch's own batches")
    val_accuracies: tuple[float, ...] = Field((), description="after each epoch; empty if it is not watched")
    best_epoch: int = Field(0, ge=0, description="with the greatest val accuracy; 0: none is watched")
    steps: int = Field(0, ge=0, description="of the optimiser")
    unreadable_train: tuple[Unreadable, ...] = ()
    unreadable_val: tuple[Unreadable, ...] = ()

    @property
    def epochs(self) -> int:
        """Passes that are done."""
        return len(self.losses)


class Commit(Record):
    """checkpoint.json: written after the tensors; it is the checkpoint."""

    digest: str = Field(description="of all that decides the training's result; another training begins anew")
    file: str = Field(description="the tensors' name, in the same folder")
    sha256: str = Field(description="of that file, hex")
    course: Course
