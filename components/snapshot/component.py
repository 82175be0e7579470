"""The interface that Kubeflow sees: snapshot."""

from typing import List

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("snapshot"), install_kfp_package=False)
def snapshot(
    project_uri: str, key: str, snapshot: dsl.Output[dsl.Dataset], champion: dsl.Output[dsl.Model]
) -> List[str]:
    """Freeze the round's inputs: the pool, the labelled samples, the settings, the champion.

    Args:
        project_uri: URI of the project.
        key: Key of the round.

    Returns:
        snapshot: Tables of the pool and of the labelled samples, and the round's record.
        champion: champion.json, and the champion's model if there is one.
        Output: Names of the pool's shards.
    """
    from alfamix_core.project.stages import run_stage

    def work():
        from components.snapshot import stage

        return stage.run(
            project_uri=project_uri, round_key=key, snapshot_path=snapshot.path, champion_path=champion.path
        )

    return run_stage("snapshot", work, project_uri, key, outputs=[snapshot.path, champion.path])
