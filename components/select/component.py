"""The interface that Kubeflow sees: select."""

from typing import List

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("select"), install_kfp_package=False)
def select(
    project_uri: str,
    key: str,
    snapshot: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    labelled: dsl.Input[dsl.Dataset],
    scores: dsl.Input[List[dsl.Dataset]],
    queries: dsl.Output[dsl.Dataset],
):
    """Choose the samples to be labelled in this round.

    Args:
        project_uri: URI of the project.
        key: Key of the round.
        snapshot: Snapshot of the round.
        model: Model of this round.
        labelled: Features of the training samples.
        scores: Scores of every shard, in any order.

    Returns:
        queries: queries.jsonl, the queries' thumbnails, and what the report shows.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.select import stage

        stage.run(
            snapshot_path=snapshot.path,
            model_path=model.path,
            labelled_path=labelled.path,
            scores_paths=[part.path for part in scores],
            queries_path=queries.path,
        )

    run_stage(
        "select",
        work,
        project_uri,
        key,
        inputs={
            "snapshot": snapshot.path,
            "model": model.path,
            "labelled": labelled.path,
            "scores": [part.path for part in scores],
        },
        outputs=[queries.path],
    )
