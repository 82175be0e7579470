"""The interface that Kubeflow sees: train."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train(
    project_uri: str,
    key: str,
    snapshot: dsl.Input[dsl.Dataset],
    champion: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    labelled: dsl.Output[dsl.Dataset],
):
    """Fit the round's model on the labelled samples, and compute their features.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        snapshot: Snapshot of the round.
        champion: Model that a warm start begins from.

    Returns:
        model: model.json and model.safetensors.
        labelled: Embeddings, logits and labels of the training samples.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.train import stage

        stage.run(
            project_uri=project_uri,
            snapshot_path=snapshot.path,
            champion_path=champion.path,
            model_path=model.path,
            labelled_path=labelled.path,
        )

    run_stage(
        "train",
        work,
        project_uri,
        key,
        inputs={"snapshot": snapshot.path, "champion": champion.path},
        outputs=[model.path, labelled.path],
    )
