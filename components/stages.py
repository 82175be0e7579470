"""The stages of a round in their order, and what differs between them: a new stage is one row here and one folder."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """What the platforms must know of a stage.

    Attributes:
        runtime: Packages of its image: ``small`` without torch, ``gpu`` with it.
        cached: Whether an earlier output for the same inputs may stand in for it; never for a stage that touches the
            project.
        fanned_out: Whether it runs once for each shard of the pool.
        loads_images: Whether it reads images with worker processes, which pass them on in /dev/shm.
        grows_with: What its time grows with, if anything.
    """

    runtime: Literal["small", "gpu"]
    cached: bool
    fanned_out: bool = False
    loads_images: bool = False
    grows_with: Literal["", "pool", "labels"] = ""


STAGES = {
    "ingest": Stage("small", cached=False),
    "snapshot": Stage("small", cached=True),
    "train": Stage("gpu", cached=True, loads_images=True, grows_with="labels"),
    "evaluate": Stage("gpu", cached=False, loads_images=True),
    "embed": Stage("gpu", cached=True, fanned_out=True, loads_images=True, grows_with="pool"),
    "score": Stage("gpu", cached=True, fanned_out=True, grows_with="pool"),
    "select": Stage("gpu", cached=True),
    "export": Stage("small", cached=False),
    "finish": Stage("small", cached=False),
}
