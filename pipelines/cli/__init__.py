"""The `alfamix` command: which commands there are, and the file that each group is in."""

from collections.abc import Callable

import typer

from pipelines.cli import data, housekeeping, labelling, models, overview, reference, schedule, services
from pipelines.cli import round as rounds
from pipelines.cli.printing import Shown, ending

DAILY, OPERATIONS = "Daily", "Operations"

app = typer.Typer(
    help="Active learning in rounds: data drops in, a few hundred questions to people out, again and again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: dict[str, dict[str, Callable[..., int | Shown]]] = {
    DAILY: {
        "init": data.init,
        "drop": data.drop,
        "round": rounds.run,
        "answer": labelling.answer,
        "status": overview.status,
        "report": overview.report,
    },
    OPERATIONS: {
        "trigger": services.trigger,
        "exporter": services.exporter,
        "promote": models.promote,
        "rollback": models.rollback,
        "doctor": housekeeping.doctor,
        "clean": housekeeping.clean,
        "unlock": housekeeping.unlock,
        "compile": reference.compile_pipeline,
        "settings": reference.settings,
        "metrics": reference.metrics,
        "version": reference.version,
    },
}
_GROUPS: dict[str, tuple[str, str, dict[str, Callable[..., int | Shown]]]] = {
    "queue": (
        DAILY,
        "Show or export the questions that wait for people.",
        {"export": labelling.export_questions, "list": labelling.list_questions},
    ),
    "labels": (DAILY, "Import the answers that people gave.", {"import": labelling.import_labels}),
    "schedule": (
        OPERATIONS,
        "Manage the recurring run that starts rounds on a Kubeflow cluster.",
        {"set": schedule.set_schedule, "show": schedule.show, "remove": schedule.remove},
    ),
}
for panel, commands in _COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(ending(command))
for group, (panel, purpose, commands) in _GROUPS.items():
    below = typer.Typer(help=purpose, no_args_is_help=True)
    for name, command in commands.items():
        below.command(name)(ending(command))
    app.add_typer(below, name=group, rich_help_panel=panel)


def main() -> None:
    """Run the command."""
    app(prog_name="alfamix")
