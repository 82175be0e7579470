"""`alfamix trigger` and `exporter`: processes that watch projects until they are stopped."""

from contextlib import nullcontext
from typing import Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import (
    EVERY_ADDRESS,
    EndpointOption,
    EngineOption,
    HostOption,
    NamespaceOption,
    NetworkOption,
    ProjectArgument,
    WorkOption,
    open_project,
)


def trigger(
    project: ProjectArgument,
    engine: EngineOption = "local",
    network: NetworkOption = "",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    sqs: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="ALFAMIX_SQS_URL", help="URL of an SQS queue that receives the bucket's events."
        ),
    ] = "",
    poll: Annotated[
        float, typer.Option(min=0.05, metavar="SECONDS", help="Seconds between two listings of the project.")
    ] = 60.0,
    quiet: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Seconds without anything new before a run starts.")
    ] = 30.0,
    max_wait: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Seconds after the first new file when a run starts although more arrive."
        ),
    ] = 600.0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port for /healthz and /metrics; 0 disables them.")
    ] = 9090,
    host: HostOption = EVERY_ADDRESS,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, start a run if one is due, and end, as a CronJob needs it.")
    ] = False,
    work: WorkOption = None,
) -> int:
    """Watch for new drops and label batches, and start a run when there are some.

    Prints one JSON line per event. SIGTERM ends it; a local run that is under way continues. With --once it waits for
    the run and ends with its exit status.
    """
    from alfamix_core.project import rounds
    from pipelines.engines import engine as engines
    from pipelines.services import health
    from pipelines.services import trigger as watch
    from pipelines.services.next_step import Pace
    from pipelines.services.s3_events import Messages
    from pipelines.services.trigger_metrics import TriggerMetrics

    engine_name = engines.EngineName.parse(engine)
    store = open_project(project)
    if sqs and not store.uri.startswith("s3://"):
        raise InputError(f"--sqs: is for a project on S3, not {store.uri}")
    name = rounds.read_settings(store).name
    chosen = engines.open(engine_name, store, engines.Options(work, network, endpoint, namespace))
    chosen.check()
    metrics = TriggerMetrics(name)
    messages = Messages(sqs) if sqs else None
    pace = Pace(poll=poll, quiet=quiet, max_wait=max_wait)
    watching = watch.Trigger(store, chosen, pace, metrics, messages, name)
    if once:
        return watching.run_once()
    stale = max(watch.LONGEST_TURN, 3 * poll)
    with (
        health.serve(metrics, port, stale, host) if port else nullcontext(),
        health.stopping_on_signals(watching.stop),
    ):
        watching.run()
    return 0


def exporter(
    projects: Annotated[list[str], typer.Argument(help="Folders or URIs of projects.", show_default=False)],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port for /metrics and /healthz; 0 takes a free one.")
    ] = 9108,
    host: HostOption = EVERY_ADDRESS,
    refresh: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="Seconds between two readings of the projects.")
    ] = 60.0,
) -> int:
    """Serve the state of projects to Prometheus, read from storage at regular intervals.

    A restart changes no value. A project that cannot be read is reported as down and keeps the values that were read
    last. SIGTERM ends it.
    """
    from pipelines.services import health
    from pipelines.services.exporter import Exporter

    exporting = Exporter([open_project(project).uri for project in projects], refresh)
    stale = max(1200.0, 3 * refresh)
    with health.serve(exporting, port, stale, host) as chosen, health.stopping_on_signals(exporting.stop):
        typer.echo(f"http://{f'[{host}]' if ':' in host else host}:{chosen}/metrics", err=True)
        exporting.run()
    return 0
