"""rounds/<n>/run/train/checkpoint.json: the file of tensors from which an unfinished training resumes."""

from pydantic import Field

from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.record import Record


class Unreadable(Record):
    """A sample that could not be read, by its index in a split's list."""

    index: int = Field(ge=0, description="index of the sample in the list of its split")
    reason: str = Field(description="human-readable reason")


class Course(Record):
    """Progress of a training: what it measured, epoch by epoch, and which samples it could not read."""

    pixels: PixelStatistics = Field(description="normalisation of the pixels with which the training began")
    losses: tuple[float, ...] = Field((), description="mean loss over the samples, per epoch")
    accuracies: tuple[float, ...] = Field((), description="accuracy on each epoch's own batches")
    val_accuracies: tuple[float, ...] = Field(
        (), description="accuracy on the val split after each epoch; empty if it is not watched"
    )
    best_epoch: int = Field(0, ge=0, description="epoch with the greatest val accuracy; 0: none is watched")
    steps: int = Field(0, ge=0, description="steps of the optimiser")
    unreadable_train: tuple[Unreadable, ...] = Field((), description="train samples that could not be read")
    unreadable_val: tuple[Unreadable, ...] = Field((), description="val samples that could not be read")

    @property
    def epochs(self) -> int:
        """Number of finished passes."""
        return len(self.losses)


class Commit(Record):
    """checkpoint.json: written after the tensors; it is the checkpoint."""

    digest: str = Field(
        description="digest of all that decides the training's result; another training starts from scratch"
    )
    file: str = Field(description="name of the tensors' file, in the same folder")
    sha256: str = Field(description="SHA-256 of that file, hex")
    course: Course = Field(description="progress of the training up to the tensors")
