"""What Kubeflow sees of evaluate."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    project_uri: str,
    key: str,
    run_id: str,
    snapshot: dsl.Input[dsl.Dataset],
    champion: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
):
    """Measure the round's model on the test split, and propose whether it becomes the champion.

    Args:
        project_uri: of the project.
        key: of the round.
        run_id: of this pipeline run.
        snapshot: the round's frozen world.
        champion: what the model is compared with.
        model: of this round.
        evaluation: evaluation.json: metrics of both models and the proposal.
        metrics: the figures, for Kubeflow's page.
        confusion: the confusion matrix, for Kubeflow's page.
    """
    from alfamix_core.project.failures import reported

    with reported("evaluate", project_uri, key, run_id=run_id):
        from components.evaluate import stage

        found = stage.run(
            project_uri=project_uri,
            run_id=run_id,
            snapshot_path=snapshot.path,
            champion_path=champion.path,
            model_path=model.path,
            evaluation_path=evaluation.path,
        )
        for name, value in found.metrics.items():
            metrics.log_metric(name, value)
        if found.confusion:
            confusion.log_confusion_matrix(list(found.classes), [list(row) for row in found.confusion])
