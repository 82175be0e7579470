"""Run the round on this machine: the same pipeline, by the SDK's own local runner.

    python -m pipelines.engines.local PROJECT_URI WORK_FOLDER [--force] [--fresh] [--containers [--network NAME]]

is one run: each stage is a process, or a container of its own image. The `alfamix` command starts it as a child, keeps
its output in a file and draws from its events. Outputs and cache stay in the work folder, so that a killed round
resumes; what a killed stage has written is not in the cache, and no later run reads it.
"""

import argparse
import contextlib
import os
import warnings
from pathlib import Path

from alfamix_core.errors import AlfamixError, one_line
from alfamix_core.learning.threads import WAITING
from alfamix_core.project import lock
from alfamix_core.storage import open_store
from alfamix_core.telemetry.events import emit


def run_pipeline(
    project_uri: str, work: Path, force: bool = False, fresh: bool = False, network: str | None = None
) -> None:
    """Run the pipeline in this process; stages are subprocesses, or containers.

    Args:
        project_uri: URI of the project.
        work: Folder that keeps outputs and cache from run to run.
        force: Start a round even if too little is new.
        fresh: Let an unfinished round compute everything again, whatever is cached.
        network: Docker's network for the containers, '' for Docker's own; None for stages as processes.

    Raises:
        RuntimeError: A stage failed; the project and the events say which one and why.
        InputError: Containers cannot run here.
    """
    from kfp import local

    from pipelines.round import alfamix_round

    os.environ[lock.DRIVER] = lock.this_process()
    outputs = work / "outputs"
    with contextlib.ExitStack() as stack:
        if network is not None:
            from pipelines.engines import containers

            runner = stack.enter_context(containers.runner(open_store(project_uri), outputs, network))
        else:
            os.environ.update(WAITING | os.environ)
            # stages run in this environment, so that the image does not matter
            warnings.filterwarnings("ignore", message=".*custom or non-Python base image.*", category=RuntimeWarning)
            runner = local.SubprocessRunner(use_venv=False)
        local.init(runner=runner, pipeline_root=str(outputs), enable_caching=True, cache_root=str(work / "cache"))
        alfamix_round(project_uri=project_uri, force=force, fresh=fresh)


def main() -> None:
    """Run once; the exit status is 0 if the pipeline succeeded, 1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.engines.local", description=__doc__)
    parser.add_argument("project_uri")
    parser.add_argument("work", type=Path)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--containers", action="store_true")
    parser.add_argument("--network", default="")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        run_pipeline(
            arguments.project_uri,
            arguments.work.resolve(),
            arguments.force,
            arguments.fresh,
            arguments.network if arguments.containers else None,
        )
    except AlfamixError as error:
        line = one_line(error)
        emit("failed", stage="run", shard="", status=error.exit_status, line=line)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()
