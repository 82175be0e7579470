"""One round as a Kubeflow pipeline: wiring only.

ingest, evaluate, export and finish touch the project and are never cached; the others are functions of the round's
key and their inputs, so that Kubeflow's cache is how a round resumes. ``fresh`` gives the round another key, which no
cache knows. Nothing behind evaluate may be cached.
"""

from functools import partial

from kfp import dsl

from components.embed.component import embed
from components.evaluate.component import evaluate
from components.export.component import export
from components.finish.component import finish
from components.ingest.component import ingest
from components.score.component import score
from components.select.component import select
from components.snapshot.component import snapshot
from components.train.component import train
from pipelines import platform
from pipelines.platform_settings import PlatformSettings


def build(settings: PlatformSettings | None):
    """Return the pipeline.

    Args:
        settings: settings of the cluster on which it runs; None for this machine.
    """
    place = partial(platform.place, settings=settings)

    @dsl.pipeline(
        name="alfamix-round",
        description="One round of active learning, from new labels to new queries",
        pipeline_config=platform.whole_run(settings),
    )
    def pipeline(project_uri: str, force: bool = False, fresh: bool = False):
        """Run one round of a project, or nothing when none is due.

        Args:
            project_uri: URI of the project, file:///… or s3://bucket/prefix.
            force: Whether a round starts even if too little is new.
            fresh: Whether a round that is resumed computes everything again, whatever is cached.
        """
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        end = place(finish(project_uri=project_uri, run_id=run_id), cached=False)
        with dsl.ExitHandler(end, name="round"):
            key = place(ingest(project_uri=project_uri, run_id=run_id, force=force, fresh=fresh), cached=False)
            with dsl.If(key.output != "idle", name="a round is due"):
                world = place(snapshot(project_uri=project_uri, key=key.output), cached=True)
                frozen, champion = world.outputs["snapshot"], world.outputs["champion"]
                fit = place(
                    train(project_uri=project_uri, key=key.output, snapshot=frozen, champion=champion), cached=True
                )
                model, labelled = fit.outputs["model"], fit.outputs["labelled"]
                measured = place(
                    evaluate(
                        project_uri=project_uri,
                        key=key.output,
                        run_id=run_id,
                        snapshot=frozen,
                        champion=champion,
                        model=model,
                    ),
                    cached=False,
                )
                # without a name: with one, Collected fails before release 2.16
                with dsl.ParallelFor(world.outputs["Output"], parallelism=platform.shards_at_once(settings)) as shard:
                    features = place(
                        embed(project_uri=project_uri, key=key.output, shard=shard, snapshot=frozen, model=model),
                        cached=True,
                    )
                    scored = place(
                        score(
                            project_uri=project_uri,
                            key=key.output,
                            shard=shard,
                            snapshot=frozen,
                            model=model,
                            labelled=labelled,
                            features=features.outputs["features"],
                        ),
                        cached=True,
                    )
                chosen = place(
                    select(
                        project_uri=project_uri,
                        key=key.output,
                        snapshot=frozen,
                        model=model,
                        labelled=labelled,
                        scores=dsl.Collected(scored.outputs["scores"]),
                    ),
                    cached=True,
                )
                place(
                    export(
                        project_uri=project_uri,
                        key=key.output,
                        run_id=run_id,
                        snapshot=frozen,
                        queries=chosen.outputs["queries"],
                        evaluation=measured.outputs["evaluation"],
                    ),
                    cached=False,
                )

    return pipeline


alfamix_round = build(None)
"""The round on this machine."""
