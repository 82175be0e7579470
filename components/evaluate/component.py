"""The interface that Kubeflow sees: evaluate."""

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
    mistakes: dsl.Output[dsl.Markdown],
):
    """Measure the round's model on the test split, and propose whether it becomes the champion.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        run_id: ID of this pipeline run.
        snapshot: Snapshot of the round.
        champion: Model that the new one is compared with.
        model: Model of this round.

    Returns:
        evaluation: evaluation.json: metrics of both models, the whole confusion matrix and the decision.
        metrics: Figures for Kubeflow's page.
        confusion: Confusion matrix for Kubeflow's page; empty for 100 classes and more.
        mistakes: Most frequent mistakes, as a table for Kubeflow's page.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.evaluate import stage

        evaluated = stage.run(
            project_uri=project_uri,
            run_id=run_id,
            snapshot_path=snapshot.path,
            champion_path=champion.path,
            model_path=model.path,
            evaluation_path=evaluation.path,
            mistakes_path=mistakes.path,
        )
        for name, value in evaluated.metrics.items():
            metrics.log_metric(name, value)
        if 0 < len(evaluated.confusion) < stage.MANY_CLASSES:
            confusion.log_confusion_matrix(list(evaluated.classes), [list(row) for row in evaluated.confusion])

    run_stage(
        "evaluate",
        work,
        project_uri,
        key,
        run_id=run_id,
        inputs={"snapshot": snapshot.path, "champion": champion.path, "model": model.path},
        outputs=[evaluation.path, mistakes.path],
    )
