"""The interface that Kubeflow sees: finish."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("finish"), install_kfp_package=False)
def finish(project_uri: str, run_id: str) -> str:
    """Tidy up after a run, however it ended: record a failure, apply a committed promotion, release the lock.

    Args:
        project_uri: URI of the project.
        run_id: ID of this pipeline run.

    Returns:
        Output: State of the run according to the project's files: exported, failed, lost or idle.
    """
    from alfamix_core.project.stages import run_stage

    def work() -> str:
        from components.finish import stage

        return stage.run(project_uri=project_uri, run_id=run_id)

    return run_stage("finish", work, project_uri, run_id=run_id)
