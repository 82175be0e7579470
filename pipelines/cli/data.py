"""`alfamix init` and `drop`: what a project is, and the data that comes to it."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alfamix_core.errors import InputError
from pipelines.cli.options import JsonOption, ProjectArgument, open_project, read_file, to_uri
from pipelines.cli.printing import Shown, out

if TYPE_CHECKING:
    from alfamix_core.storage import Store


def init(
    project: ProjectArgument,
    classes: Annotated[str, typer.Option(help="Classes that can be answered, separated by commas: cat,dog,other.")],
    name: Annotated[str, typer.Option(help="Name of the project; by default the last part of its URI.")] = "",
    budget: Annotated[int, typer.Option(help="Questions per round.")] = 100,
    strategy: Annotated[str, typer.Option(help="Strategy that chooses the questions.")] = "alfamix",
    backbone: Annotated[
        str, typer.Option(help="Encoder: small_cnn, mlp, or a torchvision classification model.")
    ] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Side of the square that the model sees, in pixels.")] = 224,
    data_prefix: Annotated[
        list[str] | None,
        typer.Option(help="Folder or s3://bucket/prefix/ whose files are used in place. May be repeated."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting: training.max_epochs=30. May be repeated."),
    ] = None,
) -> int:
    """Make a project.

    Its settings are in one file, project.json, which you may edit at any time; a round uses the copy with which it was
    planned.
    """
    from alfamix_core.project.clock import check_clock
    from alfamix_core.project.initialise import initialise
    from alfamix_core.records.project import Project

    store = open_project(project)
    fields: dict[str, object] = {
        "name": name or store.uri.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-"),
        "classes": [part.strip() for part in classes.split(",")],
        "budget": budget,
        "strategy": {"name": strategy},
        "model": {"backbone": backbone},
        "image": {"size": image_size},
        "data_prefixes": [to_uri(text) for text in data_prefix or ()],
    }
    for text in setting or ():
        _set(fields, text)
    settings = Project.parse(json.dumps(fields), "the project")
    check_clock(store, datetime.now(UTC))
    initialise(store, settings)
    out.print(f"made the project {store.uri}")
    return 0


def _set(fields: dict[str, object], text: str) -> None:
    """Put the value of ``training.max_epochs=30`` into its section; the value is JSON, or else text."""
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: must be NAME=VALUE, such as training.max_epochs=30")
    *sections, last = path.split(".")
    for section in sections:
        inner = fields.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {text}: {section} is not a section")
        fields = inner
    try:
        fields[last] = json.loads(value)
    except (ValueError, RecursionError):
        fields[last] = value


def drop(
    project: ProjectArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder of images, a manifest.jsonl, or s3://bucket/prefix/ (listed, not copied)."
        ),
    ],
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Take each image's class from the first folder below the source.")
    ] = False,
    test_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the labelled samples that goes to the test split.")
    ] = 0.0,
    val_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the labelled samples that goes to the val split.")
    ] = 0.0,
    name: Annotated[str, typer.Option(help="Name of the drop; by default made of the source and its content.")] = "",
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="Withdraw samples: the source lists ids or URIs that must not be used again."),
    ] = False,
    reason: Annotated[str, typer.Option(help="Reason for the withdrawal, in your words.")] = "",
    as_json: JsonOption = False,
) -> Shown:
    """Register a delivery of data. Samples that the project knows already are left out and counted.

    A folder below one of the project's data prefixes is used in place; any other is copied into the project. Samples
    that are withdrawn leave the pool and the training set permanently, from the next round on.
    """
    store = open_project(project)
    if withdraw:
        return _withdraw(store, Path(source), reason)
    from rich.console import Console
    from rich.progress import Progress

    from alfamix_core.project.inbox.deliveries import register

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("registering", total=None)
        delivery = register(
            store,
            to_uri(source),
            name=name,
            labelled=labelled,
            test_share=test_share,
            val_share=val_share,
            progress=lambda copied, total: bar.update(task, completed=copied, total=total),
        )
    if not delivery.added:
        return Shown(delivery, [f"nothing new: all {delivery.known:,} samples are registered already"])
    known = f", {delivery.known:,} known already" if delivery.known else ""
    return Shown(delivery, [f"drop {delivery.name}: {delivery.added:,} samples {delivery.how}{known}"])


def _withdraw(store: "Store", path: Path, reason: str) -> Shown:
    from alfamix_core.project.inbox import corrections

    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text: {error.reason} at byte {error.start}") from None
    batch, count = corrections.withdraw(store, lines, reason, datetime.now(UTC), path.name)
    line = f"withdrew {count:,} samples" if count else "no effect: all were withdrawn before"
    return Shown({"batch": batch, "withdrawn": count}, [line])
