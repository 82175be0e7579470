"""The interface that Kubeflow sees: embed."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("embed"), install_kfp_package=False)
def embed(
    project_uri: str,
    key: str,
    shard: str,
    snapshot: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    features: dsl.Output[dsl.Dataset],
):
    """Compute the columns that the strategy needs for one shard of the pool.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        shard: Name of the shard.
        snapshot: Snapshot of the round.
        model: Model of this round.

    Returns:
        features: Parts with positions, embeddings and logits.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.embed import stage

        stage.run(shard=shard, snapshot_path=snapshot.path, model_path=model.path, features_path=features.path)

    run_stage(
        "embed",
        work,
        project_uri,
        key,
        shard,
        inputs={"snapshot": snapshot.path, "model": model.path},
        outputs=[features.path],
    )
