"""Run the round on this machine: the very same pipeline, by the SDK's own local runner.

    python -m pipelines.local PROJECT_URI WORK_FOLDER [--force]

is one run. The `alfamix` command starts it as a child, keeps its output in a file and draws from its events. Outputs
and cache stay in the work folder, so that a killed round goes on where it was; what a killed stage has written is not
in the cache, and no later run reads it.
"""

import argparse
import os
import warnings
from pathlib import Path

from alfamix_core.project.lock import DRIVER


def run_pipeline(project_uri: str, work: Path, force: bool = False) -> None:
    """Run the pipeline in this process; stages are subprocesses.

    Args:
        project_uri: of the project.
        work: folder that keeps outputs and cache from run to run.
        force: start a round even if too little is new.

    Raises:
        RuntimeError: a stage failed; which and why is in the project and in the events.
    """
    from kfp import local

    from pipelines.round import alfamix_round

    os.environ[DRIVER] = str(os.getpid())
    # stages run in this environment, so that the image does not matter
    warnings.filterwarnings("ignore", message=".*custom or non-Python base image.*", category=RuntimeWarning)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(work / "outputs"),
        enable_caching=True,
        cache_root=str(work / "cache"),
    )
    alfamix_round(project_uri=project_uri, force=force)


def main() -> None:
    """Run once; the exit status is 0 when the pipeline succeeded, 1 when a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.local", description=__doc__)
    parser.add_argument("project_uri")
    parser.add_argument("work", type=Path)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    run_pipeline(arguments.project_uri, arguments.work, arguments.force)


if __name__ == "__main__":
    main()
