"""The interface that Kubeflow sees: ingest."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("ingest"), install_kfp_package=False)
def ingest(project_uri: str, run_id: str, force: bool, fresh: bool = False) -> str:
    """Decide whether a round starts, and take the project's lock for it.

    Args:
        project_uri: URI of the project, file:///… or s3://bucket/prefix.
        run_id: ID of this pipeline run.
        force: Whether to plan a round even if too little is new.
        fresh: Whether a round that is resumed computes everything again, whatever is cached.

    Returns:
        Output: Key of the round, such as 000012-4be81f0c22aa, or "idle".
    """
    from alfamix_core.project.lock import driver
    from alfamix_core.project.stages import run_stage

    def work() -> str:
        from components.ingest import stage

        return stage.run(project_uri=project_uri, holder=driver(run_id), force=force, fresh=fresh)

    return run_stage("ingest", work, project_uri, run_id=run_id)
