"""The interface that Kubeflow sees: export."""

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
    """Write the results of the round, commit it, and apply its promotion.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        run_id: ID of this pipeline run.
        snapshot: Snapshot of the round.
        queries: Queries that were chosen.
        evaluation: Evaluation of the round's model.

    Returns:
        report: Page of the round.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.export import stage

        stage.run(
            project_uri=project_uri,
            round_key=key,
            run_id=run_id,
            snapshot_path=snapshot.path,
            queries_path=queries.path,
            evaluation_path=evaluation.path,
            report_path=report.path,
        )

    run_stage(
        "export",
        work,
        project_uri,
        key,
        run_id=run_id,
        inputs={"snapshot": snapshot.path, "queries": queries.path, "evaluation": evaluation.path},
        outputs=[report.path],
    )
