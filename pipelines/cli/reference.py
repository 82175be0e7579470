"""`alfamix settings`, `metrics`, `compile` and `version`: what the software itself is, without a project."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.printing import columns, out

if TYPE_CHECKING:
    from alfamix_core.records.record import Record


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/settings.md.")] = False,
    platform: Annotated[
        bool,
        typer.Option("--platform", help="List the settings of a Kubernetes cluster, as docs/platform-settings.md."),
    ] = False,
) -> int:
    """List every setting of project.json, or of a cluster, with its default and its meaning."""
    from alfamix_core.records import settings_table
    from alfamix_core.records.project import Project

    record: type[Record] = Project
    page = settings_table.markdown
    if platform:
        from pipelines import platform_settings

        record, page = platform_settings.PlatformSettings, platform_settings.markdown
    if markdown:
        typer.echo(page(), nl=False)
        return 0
    table = columns("", name=False, takes=False, default=False, meaning=False)
    for setting in settings_table.settings(record):
        table.add_row(setting.name, setting.kind, setting.default, setting.meaning)
    out.print(table)
    return 0


def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/metrics.md.")] = False,
) -> int:
    """Explain every metric."""
    from alfamix_core.telemetry import metrics_table
    from alfamix_core.telemetry.metrics import ALL

    if markdown:
        typer.echo(metrics_table.markdown(), nl=False)
        return 0
    table = columns("", metric=False, labels=False, meaning=False)
    for metric in ALL:
        table.add_row(metric.name, ", ".join(metric.all_labels), metric.help)
    out.print(table)
    return 0


def compile_pipeline(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")],
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file of the platform's settings; by default $ALFAMIX_PLATFORM_SETTINGS."
        ),
    ] = None,
    digests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='File with a line "component image@sha256:…" for each component.'),
    ] = None,
) -> int:
    """Write the round's pipeline for a Kubeflow cluster."""
    from pipelines import platform_settings
    from pipelines.compile import compile_round

    platform = platform_settings.from_environment() if settings is None else platform_settings.read(settings)
    compile_round(to, platform if digests is None else platform_settings.with_digests(platform, digests))
    out.print(f"wrote {to}")
    return 0


def version() -> int:
    """Print the version."""
    from alfamix_core import __version__

    out.print(__version__)
    return 0
