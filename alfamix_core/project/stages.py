"""The one door through which a component runs its stage: it checks the inputs and retries after storage errors.

Kubeflow does not retry a stage that ends with an exit status: Kubeflow Pipelines 2.17 lets Argo retry a task only if
its pod is lost. A store that is away for a minute would thus end a round of many hours. So a stage retries its own
work, as the platform's settings say. Without such settings, as on a laptop, it does not, because the user can.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from alfamix_core.errors import InputError, StorageError, one_line
from alfamix_core.project.failures import StageContext, reported
from alfamix_core.project.patience import patience
from alfamix_core.telemetry.events import emit

T = TypeVar("T")


def run_stage(
    stage: str,
    work: Callable[[], T],
    project_uri: str,
    key: str = "",
    shard: str = "",
    run_id: str = "",
    inputs: Mapping[str, str | Sequence[str]] | None = None,
    outputs: Sequence[str] = (),
) -> T:
    """Run a stage's work, and return what it returns; retry it after a storage error.

    Args:
        stage: Name of the stage.
        work: Work of the stage; it may run several times.
        project_uri: URI of the project.
        key: Key of the round, or '' before there is a round.
        shard: Name of the shard; '' if the stage is not fanned out.
        run_id: ID of the run, where the stage knows it; otherwise the round's record has it.
        inputs: Path of each input artifact by name, or a sequence of paths for a list of artifacts.
        outputs: Paths of the output artifacts; what a failed attempt left there is removed before the next.

    Raises:
        SystemExit: As ``failures.reported``, once no attempt is left.
    """
    began = time.monotonic()
    context = StageContext(stage, project_uri, key, shard, run_id)
    with reported(context):
        allowed = patience()
        retry = 0
        while True:
            try:
                context.begin_attempt()
                _check_inputs(inputs or {})
                return work()
            except StorageError as error:
                seconds = allowed.wait(retry)
                if retry == allowed.retries or time.monotonic() - began + seconds > allowed.limit:
                    raise
                line = one_line(error)
            retry += 1
            emit("warning", text=f"{line}; attempt {retry + 1} of {allowed.retries + 1} begins in {seconds:.0f} s")
            time.sleep(seconds)
            _remove(outputs)


def _check_inputs(inputs: Mapping[str, str | Sequence[str]]) -> None:
    """Stop if an artifact is missing or empty, because Kubeflow's cache passes on artifacts that were deleted.

    Raises:
        InputError: An artifact is missing or empty.
    """
    for name, paths in inputs.items():
        for path in [paths] if isinstance(paths, str) else paths:
            if not _holds_something(Path(path)):
                raise InputError(
                    f'the input "{name}" is missing or empty at {path}: Kubeflow handed on what an earlier run wrote '
                    "and its store no longer has; start the round again with --fresh"
                )


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(entry.is_file() for entry in path.rglob("*"))
    return path.exists() and path.stat().st_size > 0


def _remove(paths: Sequence[str]) -> None:
    for path in map(Path, paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
