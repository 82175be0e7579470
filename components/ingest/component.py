"""What Kubeflow sees of ingest."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("ingest"), install_kfp_package=False)
def ingest(project_uri: str, run_id: str, force: bool, fresh: bool = False) -> str:
    """Decide whether a round starts, and take the project's lock for it.

    Args:
        project_uri: of the project, file:///… or s3://bucket/prefix.
        run_id: of this pipeline run.
        force: plan a round even if too little is new.
        fresh: let a round that is resumed compute everything again, whatever is cached.

    Returns:
        The round's key, such as 000012-4be81f0c22aa, or "idle".
    """
    from alfamix_core.project.failures import reported
    from alfamix_core.project.lock import driver

    with reported("ingest", project_uri, run_id=run_id):
        from components.ingest import stage

        return stage.run(project_uri=project_uri, holder=driver(run_id), force=force, fresh=fresh)
