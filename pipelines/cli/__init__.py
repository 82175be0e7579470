"""The `alfamix` command."""

import functools
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from alfamix_core import __version__
from alfamix_core.errors import AlfamixError, InputError
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.storage import Store, file_uri, open_store

if TYPE_CHECKING:
    from pipelines.engines.engine import Ended

app = typer.Typer(
    help="Active learning in rounds: data drops in, a few hundred questions to people out, again and again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
queue_app = typer.Typer(help="The questions that wait for people.", no_args_is_help=True)
labels_app = typer.Typer(help="The answers that people gave.", no_args_is_help=True)
schedule_app = typer.Typer(help="The recurring run on a Kubeflow API that starts rounds.", no_args_is_help=True)
DAILY, OPERATIONS = "Daily", "Operations"
_NAMED = 5  # set-aside files that status shows
app.add_typer(queue_app, name="queue", rich_help_panel=DAILY)
app.add_typer(labels_app, name="labels", rich_help_panel=DAILY)
app.add_typer(schedule_app, name="schedule", rich_help_panel=OPERATIONS)

ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="The project: a folder, file:///… or s3://bucket/prefix.")
]
EngineOption = Annotated[
    str,
    typer.Option(help="Where rounds run: local, on this machine; docker, here in containers; kubeflow, on a cluster."),
]
WorkOption = Annotated[Path | None, typer.Option(help="Folder for outputs and cache; by default in your cache folder.")]
EndpointOption = Annotated[
    str,
    typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="The Kubeflow API, such as http://ml-pipeline.kubeflow:8888."),
]
NamespaceOption = Annotated[
    str,
    typer.Option(envvar="KF_PIPELINES_NAMESPACE", help="On a Kubeflow of many users; by default the pod's own."),
]
NetworkOption = Annotated[
    str,
    typer.Option(
        envvar="ALFAMIX_DOCKER_NETWORK", help="Docker's network for the containers; host for an S3 on this machine."
    ),
]
HostOption = Annotated[
    str,
    typer.Option(
        envvar="ALFAMIX_HOST",
        help="Address to listen on. Kubernetes and Prometheus come from outside a pod; elsewhere 127.0.0.1 is safer.",
    ),
]
_EVERYWHERE = "0.0.0.0"  # every IPv4 address: a pod's own is not known before it runs
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]

P = ParamSpec("P")
R = TypeVar("R")
out = Console(highlight=False, soft_wrap=True, markup=False)  # names of files and classes may hold brackets


def _deliberate(command: Callable[P, R]) -> Callable[P, R]:
    """End a command that meets a deliberate error with its one line and its exit status."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except AlfamixError as error:
            typer.echo(f"alfamix: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_status) from None

    return wrapped


def _open(project: str) -> Store:
    return open_store(_uri(project))


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _columns(title: str, *names: tuple[str, bool]) -> Table:
    """Return a table whose columns are named; True aligns a column right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name, right in names:
        table.add_column(name, justify="right" if right else "left", header_style="dim")
    return table


@app.command(rich_help_panel=DAILY)
@_deliberate
def init(
    project: ProjectArgument,
    classes: Annotated[str, typer.Option(help="What can be answered, separated by commas: cat,dog,other.")],
    name: Annotated[str, typer.Option(help="Of the project; by default the last part of its place.")] = "",
    budget: Annotated[int, typer.Option(help="Questions in a round.")] = 100,
    strategy: Annotated[str, typer.Option(help="How they are chosen.")] = "alfamix",
    backbone: Annotated[str, typer.Option(help="small_cnn, mlp, or a torchvision classification model.")] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Side of the square that the model sees, pixels.")] = 224,
    data_prefix: Annotated[
        list[str] | None, typer.Option(help="A folder or s3://bucket/prefix/ that may be referred to in place.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting: training.max_epochs=30. Repeat it."),
    ] = None,
) -> None:
    """Make a project.

    Everything is in one file, project.json, which you may edit at any time; a round uses the copy it was planned with.
    """
    from alfamix_core.project.clock import check_clock
    from alfamix_core.project.initialise import initialise

    store = _open(project)
    fields: dict[str, Any] = {
        "name": name or store.uri.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-"),
        "classes": [part.strip() for part in classes.split(",")],
        "budget": budget,
        "strategy": {"name": strategy},
        "model": {"backbone": backbone},
        "image": {"size": image_size},
        "data_prefixes": [_uri(text) for text in data_prefix or ()],
    }
    for text in setting or ():
        _set(fields, text)
    settings = Project.parse(json.dumps(fields), "the project")
    check_clock(store, datetime.now(UTC))
    initialise(store, settings)
    out.print(f"made the project {store.uri}")


def _uri(text: str) -> str:
    """Return the uri of a place that a person may also give as a path."""
    return text if "://" in text else file_uri(Path(text).expanduser().resolve())


def _set(fields: dict[str, Any], text: str) -> None:
    """Put ``training.max_epochs=30`` in its place; the value is JSON, or else text."""
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: must be NAME=VALUE, such as training.max_epochs=30")
    *sections, last = path.split(".")
    for section in sections:
        fields = fields.setdefault(section, {})
        if not isinstance(fields, dict):
            raise InputError(f"--set {text}: {section} is not a section")
    try:
        fields[last] = json.loads(value)
    except (ValueError, RecursionError):
        fields[last] = value


@app.command(rich_help_panel=DAILY)
@_deliberate
def drop(
    project: ProjectArgument,
    source: Annotated[
        str, typer.Argument(help="A folder of images, a manifest.jsonl, or s3://bucket/prefix/ (listed, not copied).")
    ],
    labelled: Annotated[
        bool, typer.Option("--labelled", help="The first folder below the source names each image's class.")
    ] = False,
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Of labelled samples, for the test split.")] = 0.0,
    val_share: Annotated[float, typer.Option(min=0, max=1, help="Of labelled samples, for the val split.")] = 0.0,
    name: Annotated[str, typer.Option(help="Of the drop; by default made of the source and its content.")] = "",
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="The source lists ids or uris of samples that must not be used any more.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why they are withdrawn, in your words.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Register a delivery of data. What the project knows already is left out and counted.

    A folder below one of the project's data prefixes is referred to in place; any other is copied into the project.
    Samples that are withdrawn are in no pool and no training set from the next round on, permanently.
    """
    from alfamix_core.project.inbox import corrections
    from alfamix_core.project.inbox.deliveries import register

    store = _open(project)
    if withdraw:
        path = Path(source)
        try:
            lines = _read(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path} must be UTF-8 text: {error.reason} at byte {error.start}") from None
        batch, count = corrections.withdraw(store, lines, reason, datetime.now(UTC), path.name)
        if as_json:
            _print_json({"batch": batch, "withdrawn": count})
        else:
            out.print(f"withdrew {count:,} samples" if count else "no effect: all were withdrawn before")
        return
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("registering", total=None)
        done = register(
            store,
            _uri(source),
            name=name,
            labelled=labelled,
            test_share=test_share,
            val_share=val_share,
            progress=lambda copied, total: bar.update(task, completed=copied, total=total),
        )
    if as_json:
        _print_json(done.__dict__)
    elif not done.added:
        out.print(f"nothing new: all {done.known:,} samples are registered already")
    else:
        known = f", {done.known:,} known already" if done.known else ""
        out.print(f"drop {done.name}: {done.added:,} samples {done.how}{known}")


@app.command("round", rich_help_panel=DAILY)
@_deliberate
def round_(
    project: ProjectArgument,
    plan: Annotated[bool, typer.Option("--plan", help="Say what a round would do; start nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start a round even if too little is new.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Let an unfinished round compute everything again, whatever is cached.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give the unfinished round up: it asked nothing. Needs --reason.")
    ] = False,
    why: Annotated[str, typer.Option("--reason", help="Why it is abandoned, in your words.")] = "",
    engine: EngineOption = "local",
    network: NetworkOption = "",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="On a cluster: show the stages until the run ends.")] = False,
    work: WorkOption = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show all that the stages print.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run one round: train, embed, score, select, ask. A round that was interrupted goes on.

    Exit status: 0 exported or nothing to do; 2 wrong input; 3 storage or network, try again; 1 a bug of ours.
    """
    from alfamix_core.project import lock, planning
    from pipelines.engines import engine as engines

    name = engines.EngineName.parse(engine)
    if abandon != bool(why.strip()):
        raise InputError("--abandon: needs --reason, in your words" if abandon else "--reason: is for --abandon")
    if abandon and (plan or force or fresh):
        raise InputError("--abandon: starts nothing, and excludes --plan, --force and --fresh")
    store = _open(project)
    now = datetime.now(UTC)
    found = lock.read(store)
    reason = lock.blocked_by(found[0] if found else None, "", now)
    chosen = engines.open(name, store, engines.Options(work, network, endpoint, namespace))
    if reason and not plan and chosen.free_lock():
        reason = ""
    if reason and not plan:
        raise InputError(reason)
    if abandon:
        _abandon(store, why.strip(), now, as_json)
        return
    intended = planning.consider(store, now, force)
    if plan:
        _show_plan(store, intended, reason, as_json)
        return
    if intended.decision == "idle":
        planning.finish_killed(store, intended.last, now)
        _print_json({"state": "idle", "text": intended.text}) if as_json else out.print(f"no round: {intended.text}")
        return
    chosen.check()
    if not as_json:
        budget = f"up to {intended.project.budget} queries of {intended.counts.pool:,} samples"
        out.print(
            f"[bold]round {intended.number}[/] · {intended.text} · {budget} · {intended.project.strategy.name}",
            markup=True,
        )
    started = chosen.start(intended, force, fresh)
    if chosen.detached and not as_json:
        out.print(f"run {started.run_id}\n{started.link}")
    if chosen.detached and not wait:
        if as_json:
            _print_json({"run_id": started.run_id, "link": started.link})
        return
    ended = chosen.follow(started, Console(stderr=as_json, highlight=False), verbose)
    _conclude(store, project, ended, intended.number, started.link, as_json)


def _abandon(store: Store, reason: str, now: datetime, as_json: bool) -> None:
    from alfamix_core.project import rounds

    abandoned = rounds.abandon(store, reason, now)
    if as_json:
        _print_json(abandoned.model_dump(mode="json"))
    else:
        out.print(f"round {abandoned.number} is abandoned")


def _conclude(store: Store, project: str, ended: "Ended", planned: int, log: str, as_json: bool) -> None:
    """Say what became of a run, and end with its exit status."""
    from alfamix_core.project import champion, objects, rounds

    number = ended.number or planned
    if ended.failures:
        stage, status, line = ended.failures[0]
        typer.echo(f"alfamix: round {number}, {stage}: {line}", err=True)
        raise typer.Exit(status)
    if ended.state in ("idle", "refused"):
        typer.echo(f"alfamix: no round: {ended.text}", err=True)
        raise typer.Exit(2 if ended.state == "refused" else 0)
    known = rounds.numbers(store)
    record = rounds.read(store, number)[0] if number in known else None
    if record is None or record.outcome is None or not ended.succeeded:
        typer.echo(f"alfamix: round {number} ended without saying why; its log is {log}", err=True)
        raise typer.Exit(1)
    outcome = record.outcome
    if as_json:
        _print_json(record.model_dump(mode="json"))
        return
    metrics = " · ".join(f"{name} {value:.4f}" for name, value in outcome.metrics.items() if name == "accuracy")
    serving, _ = champion.read(store)
    promoted = " · new champion" if serving.round == number else ""
    out.print(f"asked {outcome.queries} queries{' · ' + metrics if metrics else ''}{promoted}")
    if outcome.short_by:
        out.print(f"{outcome.short_by} fewer than the budget: {outcome.reason}")
    if outcome.quarantined:
        listed = store.uri_of(objects.key_of(record, "quarantine"))
        out.print(f"{outcome.quarantined} samples could not be read: {listed}")
    if text := champion.waits(serving, record):
        out.print(f"{text}: alfamix promote {project} --round {number}, or leave it")
    out.print(f"report: alfamix report {project} --round {number}")


def _show_plan(store: Store, plan: Any, locked: str, as_json: bool) -> None:
    from pipelines.engines.estimate import minutes

    estimate = minutes(store, plan)
    facts = {
        "round": plan.number,
        "decision": "refused" if locked else plan.decision,
        "because": locked or plan.text,
        "samples": plan.counts.samples,
        "pool": plan.counts.pool,
        "labelled": plan.counts.labelled,
        "open_queries": plan.counts.queried,
        "budget": min(plan.project.budget, plan.counts.pool),
        "strategy": plan.project.strategy.name,
        "shards": plan.shards,
        "estimated_minutes": estimate,
    }
    if as_json:
        _print_json(facts)
        return
    table = _columns("", ("", False), ("", False))
    table.show_header = False
    for name, value in facts.items():
        shown = "unknown before the first round" if value is None else value
        table.add_row(name.replace("_", " "), f"{shown:,}" if isinstance(shown, int) else str(shown))
    out.print(table)


@app.command(rich_help_panel=DAILY)
@_deliberate
def answer(
    project: ProjectArgument,
    oracle: Annotated[Path, typer.Option(help="CSV with the columns sample_id and label: the known answers.")],
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of wrong answers.")] = 0.0,
    skip: Annotated[float, typer.Option(min=0, max=1, help="Share of questions that are skipped.")] = 0.0,
) -> None:
    """Answer the open questions from a file of known answers: for simulations."""
    from alfamix_core.project import rounds
    from alfamix_core.project.ledger.ledger import open_ledger
    from alfamix_core.queues import builtin
    from alfamix_core.queues import oracle as oracles

    store = _open(project)
    settings = rounds.read_settings(store)
    truth = oracles.read_truth(_read(oracle), str(oracle), settings.classes)
    with open_ledger(store, settings, datetime.now(UTC)) as ledger:
        questions = ledger.open_queries()
    events = oracles.answer(questions, truth, settings.classes, seed=settings.seed, noise=noise, skip=skip)
    if events:
        builtin.add_answers(store, oracles.batch_name(events), events)
    out.print(f"answered {len(events)} of {len(questions)} open questions")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


@app.command(rich_help_panel=DAILY)
@_deliberate
def status(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """Show the rounds, the labels, the accuracy, the open queries and the champion."""
    from alfamix_core.project import budgets, champion, lock, rounds, stopping
    from alfamix_core.project.ledger.ledger import open_ledger

    store = _open(project)
    settings = rounds.read_settings(store)
    with open_ledger(store, settings, datetime.now(UTC)) as ledger:
        counts, set_aside = ledger.counts(), [line for _, _, line in ledger.set_aside()]
    serving, _ = champion.read(store)
    held = lock.read(store)
    records = list(rounds.read_all(store))
    locked = lock.blocked_by(held[0] if held else None, "", datetime.now(UTC))
    spent = budgets.spent(settings, records, counts, datetime.now(UTC))
    advice = stopping.advise(settings, records, counts, spent)
    waiting = [text for record in records if (text := champion.waits(serving, record))]
    if as_json:
        _print_json(
            {
                "project": settings.name,
                "uri": store.uri,
                "counts": counts.model_dump(),
                "champion": serving.model_dump(mode="json"),
                "locked": locked,
                "waiting": waiting,
                "set_aside": set_aside,
                "advice": {
                    "worth_it": advice.worth_it,
                    "reasons": advice.reasons,
                    "unknown": advice.unknown,
                    "forecast": advice.forecast.__dict__ if advice.forecast else None,
                },
                "rounds": [record.model_dump(mode="json", exclude={"settings"}) for record in records],
            }
        )
        return
    title = f"{settings.name} · {settings.strategy.name} · {store.uri}"
    right, left = True, False
    table = _columns(
        title,
        *(("round", right), ("state", left), ("labels", right), ("accuracy", right), ("queries", right)),
        *(("strategy", left), ("champion", left), ("planned", left)),
    )
    for record in records:
        outcome = record.outcome
        accuracy = f"{outcome.metrics['accuracy']:.4f}" if outcome and "accuracy" in outcome.metrics else "–"
        table.add_row(
            str(record.number),
            record.state + (f": {record.reason}" if record.reason else ""),
            f"{record.counts.train:,}",
            accuracy,
            f"{outcome.queries:,}" if outcome else "–",
            outcome.strategy if outcome else "–",
            "serves" if serving.round == record.number else "",
            f"{record.planned_at:%Y-%m-%d %H:%M}",
        )
    out.print(table)
    splits = ", ".join(f"{getattr(counts, name):,} {name}" for name in ("train", "val", "test", "audit"))
    out.print(
        f"{counts.samples:,} samples: {counts.pool:,} in the pool, {counts.queried:,} queried, {counts.labelled:,} "
        f"labelled ({splits}), {counts.skipped:,} skipped, {counts.disputed:,} disputed, "
        f"{counts.quarantined:,} quarantined"
        + (f", {counts.held_out:,} held out without a label" if counts.held_out else "")
        + (f", {counts.withdrawn:,} withdrawn" if counts.withdrawn else "")
    )
    for line in (advice.text, advice.forecast.text if advice.forecast else "", *waiting):
        if line:
            out.print(line)
    for line in set_aside[:_NAMED]:
        out.print(f"set aside: {line}")
    if len(set_aside) > _NAMED:
        out.print(f"and {len(set_aside) - _NAMED} more are set aside; `alfamix doctor` lists them")
    if line := locked or lock.left_by(held[0] if held else None, datetime.now(UTC)):
        out.print(line)


@app.command(rich_help_panel=DAILY)
@_deliberate
def report(
    project: ProjectArgument,
    number: Annotated[int, typer.Option("--round", min=0, help="One round's page; 0 for the whole project's.")] = 0,
    pages: Annotated[
        bool, typer.Option("--pages", help="With the project's page: write those of its rounds beside it, linked.")
    ] = False,
    to: Annotated[Path | None, typer.Option(help="File to write; by default <name>.html here.")] = None,
) -> None:
    """Write the page of the project, or of one round: one HTML file, to be opened in a browser."""
    from alfamix_core.project import objects, rounds
    from alfamix_core.reports.gather import project_page

    store = _open(project)
    settings = rounds.read_settings(store)
    path = to or Path(f"{settings.name}-round-{number:06d}.html" if number else f"{settings.name}.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    if number:
        path.write_bytes(objects.read(store, rounds.read(store, number)[0], "report"))
    else:
        beside: dict[int, str] = {}
        for record in rounds.read_all(store) if pages else ():
            if "report" in record.objects and store.entry(objects.key_of(record, "report")) is not None:
                beside[record.number] = f"{path.stem}-round-{record.number:06d}.html"
                path.with_name(beside[record.number]).write_bytes(objects.read(store, record, "report"))
        path.write_bytes(project_page(store, datetime.now(UTC), pages=beside).encode())
    out.print(f"wrote {path.resolve()}", soft_wrap=True)


def _open_questions(store: Store) -> list[Question]:
    from alfamix_core.project import rounds
    from alfamix_core.project.ledger.ledger import open_ledger

    with open_ledger(store, rounds.read_settings(store), datetime.now(UTC)) as ledger:
        return ledger.open_queries()


@queue_app.command("export")
@_deliberate
def queue_export(project: ProjectArgument, to: Annotated[Path, typer.Argument(help="CSV file to write.")]) -> None:
    """Write the open questions as CSV, with an empty column "label" to be filled in."""
    from alfamix_core.queues.exchange import questions_csv

    store = _open(project)
    questions = _open_questions(store)
    text = questions_csv(questions, store.uri + "/")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from None
    out.print(f"wrote {len(questions)} open questions to {to}")


@queue_app.command("list")
@_deliberate
def queue_list(project: ProjectArgument, as_json: JsonOption = False) -> None:
    """Show the open questions."""
    store = _open(project)
    questions = _open_questions(store)
    if as_json:
        _print_json([question.model_dump(mode="json") for question in questions])
        return
    table = _columns("", ("round", True), ("rank", True), ("sample", False), ("suggestion", False), ("uri", False))
    for question in questions:
        table.add_row(str(question.round), str(question.rank), question.sample_id, question.suggestion, question.uri)
    out.print(table)


@labels_app.command("import")
@_deliberate
def labels_import(
    project: ProjectArgument,
    source: Annotated[Path, typer.Argument(help="CSV with sample_id and label; kind, annotator, time are optional.")],
    annotator: Annotated[str, typer.Option(help="Who answered, where a row does not say.")] = "import",
) -> None:
    """Read answers from CSV. Rows without an answer are left out; importing a file twice has no effect."""
    from alfamix_core.project import layout, rounds
    from alfamix_core.project.ledger.ledger import open_ledger
    from alfamix_core.queues import builtin
    from alfamix_core.queues.exchange import answers_from_csv

    store = _open(project)
    settings, now = rounds.read_settings(store), datetime.now(UTC)
    with open_ledger(store, settings, now) as ledger:
        batch, events = answers_from_csv(_read(source), str(source), ledger, settings.classes, annotator, now)
    if store.entry(layout.labels(batch)) is not None:
        out.print(f"no effect: {source} is imported already")
        return
    if events:
        builtin.add_answers(store, batch, events)
    out.print(f"imported {len(events)} answers")


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def trigger(
    project: ProjectArgument,
    engine: EngineOption = "local",
    network: NetworkOption = "",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    sqs: Annotated[str, typer.Option(envvar="ALFAMIX_SQS_URL", help="Queue of the bucket's events, by its url.")] = "",
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between two listings of the project.")] = 60.0,
    quiet: Annotated[float, typer.Option(min=0, help="Seconds without anything new before a run starts.")] = 30.0,
    max_wait: Annotated[float, typer.Option(min=0, help="Seconds after which it starts although more comes.")] = 600.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of /healthz and /metrics; 0 for none.")] = 9090,
    host: HostOption = _EVERYWHERE,
    once: Annotated[bool, typer.Option("--once", help="Look once, start a run if one is due, end: a CronJob.")] = False,
    work: WorkOption = None,
) -> None:
    """Watch for new drops and label batches, and start a run when there are some.

    Prints one JSON line an event. Ends on SIGTERM; a local run that is under way goes on. With --once it waits for it,
    and ends with its exit status.
    """
    from contextlib import nullcontext

    from alfamix_core.project import rounds
    from pipelines.engines import engine as engines
    from pipelines.services import health
    from pipelines.services import trigger as trigger_loop
    from pipelines.services.s3_events import Messages

    engine_name = engines.EngineName.parse(engine)
    store = _open(project)
    if sqs and not store.uri.startswith("s3://"):
        raise InputError(f"--sqs: is for a project on S3, not {store.uri}")
    name = rounds.read_settings(store).name
    chosen = engines.open(engine_name, store, engines.Options(work, network, endpoint, namespace))
    chosen.check()
    metrics = health.TriggerMetrics(name)
    messages = Messages(sqs) if sqs else None
    pace = trigger_loop.Pace(poll=poll, quiet=quiet, max_wait=max_wait)
    watching = trigger_loop.Trigger(store, chosen, pace, metrics, messages, name)
    if once:
        raise typer.Exit(watching.run_once())
    stale = max(trigger_loop.LONGEST_TURN, 3 * poll)
    with (
        health.serve(metrics, port, stale, host) if port else nullcontext(),
        health.stopping_on_signals(watching.stop),
    ):
        watching.run()


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def exporter(
    projects: Annotated[list[str], typer.Argument(help="Folders or uris of projects.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics and /healthz; 0 for a free one.")] = 9108,
    host: HostOption = _EVERYWHERE,
    refresh: Annotated[float, typer.Option(min=0.5, help="Seconds between two readings of the projects.")] = 60.0,
) -> None:
    """Serve projects' states to Prometheus, read from storage again and again.

    A restart changes no value. A project that cannot be read is said to be down and keeps what was read last. Ends on
    SIGTERM.
    """
    from pipelines.services import health
    from pipelines.services.exporter import Exporter

    exporting = Exporter([_open(project).uri for project in projects], refresh)
    stale = max(1200.0, 3 * refresh)
    with health.serve(exporting, port, stale, host) as chosen, health.stopping_on_signals(exporting.stop):
        typer.echo(f"http://{f'[{host}]' if ':' in host else host}:{chosen}/metrics", err=True)
        exporting.run()


@app.command("metrics", rich_help_panel=OPERATIONS)
def metrics_(
    markdown: Annotated[bool, typer.Option("--markdown", help="As the page docs/metrics.md.")] = False,
) -> None:
    """Explain every metric."""
    from alfamix_core.telemetry import metrics_table
    from alfamix_core.telemetry.metrics import ALL

    if markdown:
        typer.echo(metrics_table.markdown(), nl=False)
        return
    table = _columns("", ("metric", False), ("labels", False), ("meaning", False))
    for metric in ALL:
        table.add_row(metric.name, ", ".join(metric.all_labels), metric.help)
    out.print(table)


@schedule_app.command("set")
@_deliberate
def schedule_set(
    project: ProjectArgument,
    cron: Annotated[str, typer.Option(help='When: six fields, seconds first; "0 0 6 * * *" is 06:00:00 UTC daily.')],
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    plan: Annotated[bool, typer.Option("--plan", help="Say when runs would start; set nothing.")] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make it again even if nothing differs, as after an upgrade of Kubeflow.")
    ] = False,
) -> None:
    """Start a run at fixed times, in place of an earlier schedule. A run that is in flight goes on.

    Missed times are not caught up, and a project has one run at a time.
    """
    from alfamix_core.project import rounds
    from pipelines.services import cron as crons

    expression = crons.parse(cron)
    store = _open(project)
    settings = rounds.read_settings(store)
    out.print(f"{expression.text}: {expression.words()}")
    for at in expression.after(datetime.now(UTC), 3):
        out.print(f"  {at:%A %Y-%m-%d %H:%M:%S} UTC")
    if plan:
        return
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    change = schedule.put(Kubeflow(endpoint, namespace), settings, store.uri, expression, renew)
    assert change.schedule is not None
    out.print(f"{'no change: ' if change.unchanged else ''}set as recurring run {change.schedule.recurring_run_id}")
    _show_cleared(change)


@schedule_app.command("show")
@_deliberate
def schedule_show(
    project: ProjectArgument,
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the schedule in force, its next three times, and what earlier ones left."""
    from alfamix_core.project import rounds
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import cron, schedule

    store = _open(project)
    found = schedule.show(Kubeflow(endpoint, namespace), rounds.read_settings(store), store.uri)
    if as_json:
        _print_json([each.__dict__ for each in found])
        return
    if not any(each.enabled for each in found):
        out.print("no schedule is set")
    for each in found:
        if not each.enabled:
            out.print(f"recurring run {each.recurring_run_id}: disabled, replaced while it had a run in flight")
            continue
        expression = cron.parse(each.cron)
        out.print(f"recurring run {each.recurring_run_id}: {each.cron}: {expression.words()}")
        for at in expression.after(datetime.now(UTC), 3):
            out.print(f"  {at:%A %Y-%m-%d %H:%M:%S} UTC")


@schedule_app.command("remove")
@_deliberate
def schedule_remove(project: ProjectArgument, endpoint: EndpointOption = "", namespace: NamespaceOption = "") -> None:
    """Start no more runs at fixed times. A run that is in flight goes on."""
    from alfamix_core.project import rounds
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    store = _open(project)
    change = schedule.remove(Kubeflow(endpoint, namespace), rounds.read_settings(store), store.uri)
    out.print("no schedule was set" if change.unchanged else "no more runs start by schedule")
    _show_cleared(change)


def _show_cleared(change: Any) -> None:
    for each in change.deleted:
        out.print(f"deleted recurring run {each}")
    for each in change.left:
        out.print(f"recurring run {each} has a run in flight: disabled, to be deleted by the next set or remove")


@app.command("compile", rich_help_panel=OPERATIONS)
@_deliberate
def compile_(
    to: Annotated[Path, typer.Argument(help="YAML file to write.")],
    settings: Annotated[
        Path | None, typer.Option(help="Of the platform, a TOML file; by default $ALFAMIX_PLATFORM_SETTINGS.")
    ] = None,
    digests: Annotated[
        Path | None, typer.Option(help='Images: a line "component image@sha256:…" for each component.')
    ] = None,
) -> None:
    """Write the round's pipeline for a Kubeflow cluster."""
    from pipelines import platform_settings
    from pipelines.compile import compile_round

    platform = platform_settings.from_environment() if settings is None else platform_settings.read(settings)
    compile_round(to, platform if digests is None else platform_settings.with_digests(platform, digests))
    out.print(f"wrote {to}")


@app.command(rich_help_panel=OPERATIONS)
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="As docs/settings.md has them.")] = False,
    platform: Annotated[
        bool, typer.Option("--platform", help="Of a Kubernetes cluster, as docs/platform-settings.md has them.")
    ] = False,
) -> None:
    """List every setting of project.json, or of a cluster, its default and what it does."""
    from alfamix_core.records import settings_table
    from alfamix_core.records.record import Record

    record: type[Record] = Project
    if platform:
        from pipelines import platform_settings

        record = platform_settings.PlatformSettings
    if markdown:
        typer.echo(platform_settings.markdown() if platform else settings_table.markdown(), nl=False)
        return
    table = _columns("", ("name", False), ("takes", False), ("default", False), ("meaning", False))
    for setting in settings_table.settings(record):
        table.add_row(setting.name, setting.kind, setting.default, setting.meaning)
    out.print(table)


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def promote(
    project: ProjectArgument,
    number: Annotated[int, typer.Option("--round", min=1, help="Whose model is to serve.")],
    reason: Annotated[str, typer.Option(help="Why, in your words; kept with the decision.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a round's model the champion, whatever the gate said. The decision is kept with its numbers."""
    _choose(project, number, reason, "promote", as_json)


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def rollback(
    project: ProjectArgument,
    reason: Annotated[str, typer.Option(help="Why, in your words; kept with the decision.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Go back to the champion that served before. The decision is kept with its numbers."""
    _choose(project, None, reason, "rollback", as_json)


def _choose(project: str, number: int | None, reason: str, kind: Literal["promote", "rollback"], as_json: bool) -> None:
    from alfamix_core.project import choice, rounds

    store = _open(project)
    rounds.read_settings(store)
    decision = choice.choose(store, number, reason, datetime.now(UTC), kind)
    if as_json:
        _print_json(decision.model_dump(mode="json"))
        return
    before = f" in place of round {decision.champion_round}" if decision.champion_round else ""
    out.print(f"the model of round {decision.round} is the champion{before}")


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def doctor(
    project: ProjectArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file again and compare its digest.")] = False,
    release: Annotated[
        bool, typer.Option("--release", help="Let all samples out of the quarantine: they were repaired.")
    ] = False,
    sample: Annotated[list[str] | None, typer.Option(help="With --release: this one alone. Repeat it.")] = None,
    engine: Annotated[str, typer.Option(help="kubeflow: look at the schedule on the cluster, too.")] = "local",
    endpoint: EndpointOption = "",
    namespace: NamespaceOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what is inconsistent, orphaned, locked, overdue or waits for a person, and what to do.

    Exit status: 0 all is well; 1 there are findings.
    """
    from alfamix_core.project import doctor as doctors
    from alfamix_core.project.inbox import corrections
    from pipelines.engines import engine as engines

    store = _open(project)
    if sample and not release:
        raise InputError("--sample: is for --release")
    if release:
        count = corrections.release(store, sample or (), datetime.now(UTC))
        _print_json({"released": count}) if as_json else out.print(f"released {count:,} samples from the quarantine")
        return
    chosen = engines.open(
        engines.EngineName.parse(engine), store, engines.Options(endpoint=endpoint, namespace=namespace)
    )
    found = doctors.examine(store, datetime.now(UTC), deep)
    if chosen.detached:
        found = [*found, *_examine_cluster(store, endpoint, namespace)]
    if as_json:
        _print_json([finding.__dict__ for finding in found])
    elif not found:
        out.print("all is well")
    for finding in () if as_json else found:
        out.print(f"{finding.kind}: {finding.key + ' ' if finding.key else ''}{finding.what}")
        out.print(f"  {finding.do}")
    if found:
        raise typer.Exit(1)


def _examine_cluster(store: Store, endpoint: str, namespace: str) -> list[Any]:
    """Return what is wrong on the cluster: a schedule from before its upgrade, runs that are over by their age."""
    from alfamix_core.project import rounds
    from alfamix_core.project.doctor import Finding
    from pipelines.engines.kubeflow import Kubeflow
    from pipelines.services import schedule

    kubeflow, settings = Kubeflow(endpoint, namespace), rounds.read_settings(store)
    found = []
    if what := schedule.outdated(kubeflow, settings, store.uri):
        found.append(Finding("overdue", "", what, "make it again: alfamix schedule set PROJECT --cron … --renew"))
    kubeflow.in_flight(settings, store.uri)
    for run in kubeflow.stale:
        what = f"Kubeflow calls run {run.run_id} {run.state} long after its time limit; it holds nothing up"
        found.append(Finding("orphaned", "", what, "delete it on Kubeflow's pages"))
    return found


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def clean(
    project: ProjectArgument,
    keep_rounds: Annotated[int, typer.Option(min=0, help="The newest rounds, which keep everything.")] = 10,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete reports, thumbnails and models of old closed rounds, and what no record names.

    Never a champion, never an open round; every round's numbers, queries and decisions stay.
    """
    from alfamix_core.project import cleaning, rounds

    store = _open(project)
    rounds.read_settings(store)
    entries = (cleaning.clean if yes else cleaning.removable)(store, keep_rounds, datetime.now(UTC))
    size = sum(entry.size for entry in entries)
    if as_json:
        _print_json({"deleted": yes, "bytes": size, "keys": [entry.key for entry in entries]})
        return
    if not yes and (uploads := cleaning.left_uploads(store, datetime.now(UTC))):
        out.print(f"would give up {len(uploads)} uploads that were never finished")
    for entry in entries:
        out.print(entry.key)
    verb = "deleted" if yes else "would delete"
    hint = "" if yes or not entries else "; --yes does it"
    out.print(f"{verb} {len(entries):,} files, {size / 1e6:.1f} MB{hint}")


@app.command(rich_help_panel=OPERATIONS)
@_deliberate
def unlock(project: ProjectArgument) -> None:
    """Take the project's lock from a run that is dead. The dead run cannot commit any more."""
    from alfamix_core.project import rounds

    held = rounds.unlock(_open(project), datetime.now(UTC))
    holder = held.holder if held else None
    out.print(f"unlocked: run {holder.run_id} held it" if holder else "the project was not locked")


@app.command(rich_help_panel=OPERATIONS)
def version() -> None:
    """Print the version."""
    out.print(__version__)


def main() -> None:
    """Run the command."""
    app(prog_name="alfamix")
