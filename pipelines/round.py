"""One round as a Kubeflow pipeline: wiring only.

The word in front of each step is its caching rule. ingest, evaluate, export and finish touch the project and run
``always``; the others are functions of the round's key and their inputs, and an output that the cache knows is
``reused``: that is how a round resumes. ``fresh`` gives the round another key, which no cache knows. Nothing behind
evaluate may be reused.
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
        settings: Settings of the cluster on which it runs; None for this machine.
    """
    reused = partial(platform.configure, settings=settings, cached=True)
    always = partial(platform.configure, settings=settings, cached=False)

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
        run = {"project_uri": project_uri, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        with dsl.ExitHandler(always(finish(**run)), name="round"):
            key = always(ingest(**run, force=force, fresh=fresh)).output
            with dsl.If(key != "idle", name="a round is due"):
                frozen = reused(snapshot(project_uri=project_uri, key=key))
                champion, shards = frozen.outputs["champion"], frozen.outputs["Output"]
                common = {"project_uri": project_uri, "key": key, "snapshot": frozen.outputs["snapshot"]}
                trained = reused(train(**common, champion=champion))
                model, labelled = trained.outputs["model"], trained.outputs["labelled"]
                measured = always(evaluate(**common, run_id=run["run_id"], champion=champion, model=model))
                # without a name: with one, Collected fails before release 2.16
                with dsl.ParallelFor(shards, parallelism=platform.shards_at_once(settings)) as shard:
                    embedded = reused(embed(**common, shard=shard, model=model))
                    features = embedded.outputs["features"]
                    scored = reused(score(**common, shard=shard, model=model, labelled=labelled, features=features))
                scores = dsl.Collected(scored.outputs["scores"])
                selected = reused(select(**common, model=model, labelled=labelled, scores=scores))
                queries, evaluation = selected.outputs["queries"], measured.outputs["evaluation"]
                always(export(**common, run_id=run["run_id"], queries=queries, evaluation=evaluation))

    return pipeline


alfamix_round = build(None)
"""The round on this machine."""
