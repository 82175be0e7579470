"""What Kubeflow sees of export."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("export"), install_kfp_package=False)
def export(
    project_uri: str,
    key: str,
    run_id: str,
    snapshot: dsl.Input[dsl.Dataset],
    queries: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
):
    """Write what the round produced, commit it, and apply its promotion.

    Args:
        project_uri: of the project.
        key: of the round.
        run_id: of this pipeline run.
        snapshot: the round's frozen world.
        queries: what was chosen.
        evaluation: of the round's model.
        report: the round's page.
    """
    from alfamix_core.project.failures import reported

    with reported("export", project_uri, key, run_id=run_id):
        from components.export import stage

        stage.run(
            project_uri=project_uri,
            key=key,
            run_id=run_id,
            snapshot_path=snapshot.path,
            queries_path=queries.path,
            evaluation_path=evaluation.path,
            report_path=report.path,
        )
