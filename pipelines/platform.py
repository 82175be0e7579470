"""Where a task runs: the only place that says so. Locally there is nothing to say but whether its output is reused."""

from kfp import dsl


def place(task: dsl.PipelineTask, *, cached: bool) -> dsl.PipelineTask:
    """Return the task with its settings for the platform.

    Args:
        task: a step of the round.
        cached: whether an earlier output of the same step on the same inputs may stand in for it; never for a step
            that touches the project.
    """
    return task.set_caching_options(cached)
