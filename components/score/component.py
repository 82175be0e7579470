"""The interface that Kubeflow sees: score."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def score(
    project_uri: str,
    key: str,
    shard: str,
    snapshot: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    labelled: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    scores: dsl.Output[dsl.Dataset],
):
    """Score one shard of the pool, and keep what the choice over the whole pool may need.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        shard: Name of the shard.
        snapshot: Snapshot of the round.
        model: Model of this round.
        labelled: Features of the training samples.
        features: Features of the shard.

    Returns:
        scores: Positions, scores and the strategy's rows.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.score import stage

        stage.run(
            shard=shard,
            snapshot_path=snapshot.path,
            model_path=model.path,
            labelled_path=labelled.path,
            features_path=features.path,
            scores_path=scores.path,
        )

    run_stage(
        "score",
        work,
        project_uri,
        key,
        shard,
        inputs={"snapshot": snapshot.path, "model": model.path, "labelled": labelled.path, "features": features.path},
        outputs=[scores.path],
    )
