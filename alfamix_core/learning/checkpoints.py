"""Checkpoints of a training: tensors first, then the small JSON file that commits them.

A checkpoint that cannot be written or read is a warning, never an error.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alfamix_core.errors import AlfamixError, MissingObjectError, StorageError, one_line
from alfamix_core.learning.distributed import Team
from alfamix_core.records.checkpoint import Commit, Course
from alfamix_core.storage import Store, file_sha256
from alfamix_core.telemetry.events import emit

_COMMIT = "checkpoint.json"
_TENSORS = ".safetensors"
_FETCHED = "fetched.safetensors"
_SHARE = 0.05  # greatest share of a training's time spent on writing


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training at the end of an epoch.

    Attributes:
        tensors: Weights, optimiser state, weights of the best epoch and random states, by name.
        course: Measurements so far.
    """

    tensors: dict[str, Tensor]
    course: Course


class Checkpoints:
    """The checkpoints of one training in one folder of a store; only the last one is kept.

    A kill at any time leaves either the old checkpoint or the new one, never half of one. Two attempts at the same
    training may write concurrently: each commits whole checkpoints, and the later commit wins.
    """

    def __init__(self, store: Store, folder: str, digest: str, every_seconds: float, scratch: Path) -> None:
        """Prepare to write and read; nothing is read yet.

        Args:
            store: Store of the project.
            folder: Prefix of the keys, ending in a slash, reserved for these files.
            digest: Digest of everything that decides the training's result.
            every_seconds: Least time between two checkpoints, in seconds. A slow store lengthens it, so that writing
                takes at most a twentieth of the time. 0 writes after every epoch, whatever it costs.
            scratch: Local folder for the file of tensors while it is copied.
        """
        self._store = store
        self._folder = folder
        self._digest = digest
        self._every = every_seconds
        self._scratch = scratch
        self._due = time.monotonic() + every_seconds

    def find(self, team: Team) -> Checkpoint | None:
        """Return the checkpoint of this training, or None; a checkpoint that cannot be used is reported in one line.

        The team's first process reads from the store; the others, which share its scratch folder, read what it fetched.
        """
        checkpoint = self._find() if team.rank == 0 else None
        course = team.texts(checkpoint.course.model_dump_json() if checkpoint else "")[0]
        if not course or team.rank == 0:
            return checkpoint
        return Checkpoint(load_file(self._scratch / _FETCHED), Course.parse(course, _COMMIT))

    def _find(self) -> Checkpoint | None:
        try:
            return self._read()
        except AlfamixError as error:
            _warn(f"the training starts from scratch, because its checkpoint cannot be read: {error}")
            return None

    def is_due(self) -> bool:
        """Return whether the end of this epoch should be checkpointed."""
        return time.monotonic() >= self._due

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; if the store fails, warn and leave the previous one.

        Args:
            checkpoint: New checkpoint, with its tensors on the CPU.
        """
        start = time.monotonic()
        try:
            self._write(checkpoint)
        except AlfamixError as error:
            _warn(f"the checkpoint of epoch {checkpoint.course.epochs} could not be written: {error}")
        end = time.monotonic()
        if self._every:
            self._due = end + max(self._every, (end - start) * (1 / _SHARE - 1))

    def _read(self) -> Checkpoint | None:
        key = self._folder + _COMMIT
        try:
            commit = Commit.parse(self._store.read(key).data, key)
        except MissingObjectError:
            return None
        if commit.digest != self._digest:
            _warn(f"{self._store.uri_of(key)} belongs to another training and is not used")
            return None
        path = self._scratch / _FETCHED
        try:
            self._store.fetch(self._folder + commit.file, path)
            sha256 = file_sha256(path)
            if sha256 != commit.sha256:
                raise StorageError(f"{commit.file} must have SHA-256 {commit.sha256}, as {key} says, not {sha256}")
            return Checkpoint(load_file(path), commit.course)
        except SafetensorError as error:
            raise StorageError(f"{commit.file} is damaged ({error})") from error

    def _write(self, checkpoint: Checkpoint) -> None:
        name = f"{checkpoint.course.epochs:06d}-{uuid.uuid4().hex[:12]}{_TENSORS}"
        path = self._scratch / name
        try:
            save_file(checkpoint.tensors, path)
            sha256 = self._store.create_from(self._folder + name, path)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        finally:
            path.unlink(missing_ok=True)
        commit = Commit(digest=self._digest, file=name, sha256=sha256, course=checkpoint.course)
        self._commit(commit.document())
        for entry in list(self._store.list(self._folder)):
            if entry.key.endswith(_TENSORS) and entry.key != self._folder + name:
                self._store.delete(entry.key)

    def _commit(self, document: bytes) -> None:
        key = self._folder + _COMMIT
        try:
            tag = self._store.read(key).tag
        except MissingObjectError:
            self._store.create(key, document)
        else:
            self._store.swap(key, document, tag)


def digest_of(*parts: bytes) -> str:
    """Return the SHA-256, in hex, of a list of byte strings; moving a boundary between two changes it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _warn(text: str) -> None:
    emit("warning", stage="train", text=one_line(text))
