"""A Kubeflow Pipelines API: the pipeline's version there, its runs, and how they end."""

import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import kfp_server_api as api

from alfamix_core import __version__
from alfamix_core.errors import AlfamixError, InputError
from alfamix_core.records.project import Project
from alfamix_core.telemetry.events import emit
from pipelines import platform_settings
from pipelines.compile import compile_round
from pipelines.engines import kubeflow_client, kubeflow_stages
from pipelines.engines.kubeflow_client import ENDPOINT, text
from pipelines.engines.kubeflow_stages import Stage
from pipelines.platform_settings import PlatformSettings

Item = TypeVar("Item")
Answer = TypeVar("Answer")

PIPELINE = "alfamix-round"
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
MARGIN = timedelta(hours=2)
"""Time after a run's limit for its exit task, for a workflow that waited, for clocks; then the run is over."""
PATIENCE_SECONDS = 300.0
"""Time for which a followed run's API may fail: a token that rotates, a proxy that restarts."""
_LONGEST_WAIT = 30.0  # seconds between two looks while the API fails
_PAGE = 100


@dataclass(frozen=True)
class Run:
    """A run as the API describes it.

    Attributes:
        run_id: ID of the run.
        state: PENDING, RUNNING, SUCCEEDED, FAILED …, '' before there is one.
        stages: Stages that have begun, in the order of the round; none in a listing.
        error: Error of the run, in the API's words.
        created_at: Time of its creation, None if the API does not name it.
        recurring_run_id: ID of the recurring run that started it, '' for none.
    """

    run_id: str
    state: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)
    error: str = ""
    created_at: datetime | None = None
    recurring_run_id: str = ""

    @property
    def in_flight(self) -> bool:
        """Whether the API calls the run unfinished; see ``Kubeflow.is_over``."""
        return self.state not in ENDED


@dataclass(frozen=True)
class Version:
    """A version of the round's pipeline on one API, by the ids of the pipeline and of the version."""

    pipeline_id: str
    version_id: str


class _Page(Protocol):
    """One page of a listing."""

    next_page_token: str | None


class Kubeflow:
    """One API. Every method raises InputError if the API refuses, StorageError if it cannot answer."""

    def __init__(self, endpoint: str, namespace: str = "") -> None:
        """Connect; token, certificate authority and the platform's settings come from the environment.

        Args:
            endpoint: Address such as http://ml-pipeline.kubeflow:8888.
            namespace: Namespace of a multi-user deployment; empty for the pod's own, or for a single-user deployment.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise InputError(
                f'--endpoint: must be the http:// or https:// address of a Kubeflow Pipelines API, not "{endpoint}"; '
                f"${ENDPOINT} is its default"
            )
        self.endpoint = endpoint.rstrip("/")
        self.platform = platform_settings.from_environment()
        self.client = kubeflow_client.connect(self.endpoint, namespace)
        self.namespace = self.client.get_user_namespace() or None
        self.stale: tuple[Run, ...] = ()

    def experiment(self, project: Project) -> str:
        """Return the id of the experiment that holds the project's runs; it is made where there is none."""
        name = f"alfamix-{project.name}"

        def find() -> str | None:
            listed = self.client.list_experiments(filter=_named(name), namespace=self.namespace).experiments
            return text(listed[0], "experiment_id") if listed else None

        def make() -> str:
            wanted = api.V2beta1Experiment(display_name=name, namespace=self.namespace)
            return text(self.client.experiments.experiment_service_create_experiment(wanted), "experiment_id")

        return self._found_or_made(find, make)

    def version(self) -> Version:
        """Return the version of this code's pipeline on this platform; it is uploaded where missing.

        The version's name holds a digest of the compiled pipeline: the same code makes the same version.
        """
        package = _compiled(self.platform.document())
        name = f"{__version__}-{hashlib.sha256(package).hexdigest()[:12]}"
        pipeline = self._pipeline()

        def find() -> str | None:
            listed = self.client.list_pipeline_versions(pipeline, filter=_named(name)).pipeline_versions
            return text(listed[0], "pipeline_version_id") if listed else None

        def make() -> str:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "round.yaml"
                path.write_bytes(package)
                made = self.client.upload_pipeline_version(str(path), name, pipeline_id=pipeline)
            return text(made, "pipeline_version_id")

        return Version(pipeline, self._found_or_made(find, make))

    def _pipeline(self) -> str:
        def find() -> str | None:
            listed = self.client.list_pipelines(filter=_named(PIPELINE), namespace=self.namespace).pipelines
            return text(listed[0], "pipeline_id") if listed else None

        def make() -> str:
            wanted = api.V2beta1Pipeline(display_name=PIPELINE, name=PIPELINE, namespace=self.namespace)
            return text(self.client.pipelines.pipeline_service_create_pipeline(wanted), "pipeline_id")

        return self._found_or_made(find, make)

    def _found_or_made(self, find: Callable[[], str | None], make: Callable[[], str]) -> str:
        """Return the id of something whose name is unique; another caller may make it at the same moment."""
        if existing := self.ask(find):
            return existing
        try:
            return self.ask(make)
        except InputError:
            if existing := self.ask(find):
                return existing
            raise

    def start(self, project: Project, project_uri: str, force: bool = False, fresh: bool = False) -> str:
        """Start a run of the round's pipeline and return its id; ``ingest`` decides whether it becomes a round."""
        version = self.version()
        experiment = self.experiment(project)

        def run() -> str:
            started = self.client.run_pipeline(
                experiment,
                f"alfamix-{project.name} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}",
                params={"project_uri": project_uri, "force": force, "fresh": fresh},
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=self.platform.service_account or None,
            )
            return text(started, "run_id")

        return self.ask(run)

    def link(self, run_id: str) -> str:
        """Return the address of a run's page.

        On a multi-user Kubeflow the pages are below the dashboard's ``/_/pipeline``, unless the address of the pages
        has a path of its own, and show nothing before they know the namespace.
        """
        pages = os.environ.get("KF_PIPELINES_UI_ENDPOINT", self.endpoint).rstrip("/")
        if self.namespace:
            below = pages if urlsplit(pages).path else f"{pages}/_/pipeline"
            return f"{below}/?ns={quote(self.namespace)}#/runs/details/{run_id}"
        return f"{pages}/#/runs/details/{run_id}"

    def api_version(self) -> str:
        """Return the release that the API names, else its commit, else ''."""
        answer = self._json("/apis/v2beta1/healthz")
        names = (str(answer.get(name) or "") for name in ("tag_name", "commit_sha"))
        return next((name for name in names if name not in ("", "unknown")), "")

    def run(self, run_id: str) -> Run:
        """Return a run as it is now, with its stages."""
        # the client has a model of release 2.17, which drops the tasks of 2.18; and 2.17 ignores the view
        answer = self._json(f"/apis/v2beta1/runs/{quote(run_id, safe='')}", view="FULL")
        with kubeflow_client.errors(self.endpoint):
            if text(answer, "run_id") != run_id:
                raise ValueError(f"it is of run {answer['run_id']}")
            error = answer.get("error") or {}
            return Run(
                run_id=run_id,
                state=str(answer.get("state") or ""),
                stages=kubeflow_stages.of_run(answer),
                error=str(error.get("message") or ""),
                created_at=_moment(answer.get("created_at")),
                recurring_run_id=str(answer.get("recurring_run_id") or ""),
            )

    def is_over(self, run: Run) -> bool:
        """Return whether a run has ended, or is so old that it must have.

        A row of the API stays RUNNING permanently if the run's Workflow was deleted before it was looked at
        (kubeflow/pipelines issue 5722).
        """
        return not run.in_flight or self._is_stale(run)

    def _is_stale(self, run: Run) -> bool:
        limit = timedelta(hours=self.platform.run_hours) + MARGIN
        return run.in_flight and run.created_at is not None and datetime.now(UTC) - run.created_at > limit

    def in_flight(self, project: Project, project_uri: str) -> list[Run]:
        """Return the project's runs that have not ended, newest first.

        The API is asked for the runs that it does not call ended, the newest first, and for no page after the first run
        that is over by its age, so that a long history costs nothing. Such runs are logged, and kept in ``stale``.
        """
        experiment = self.experiment(project)
        fresh: list[Run] = []
        stale: list[Run] = []
        listing = self.pages(
            lambda token: self.client.list_runs(
                token, _PAGE, sort_by="created_at desc", experiment_id=experiment, filter=_NOT_ENDED
            ),
            "runs",
            lambda run: (_of_listed(run), parameters(run).get("project_uri")),
        )
        for page in listing:
            for run, uri in page:
                if uri == project_uri:
                    (stale if self._is_stale(run) else fresh).append(run)
            if any(self._is_stale(run) for run, _ in page):
                break
        self._log_stale(stale)
        return fresh

    def _log_stale(self, stale: list[Run]) -> None:
        known = {run.run_id for run in self.stale}
        self.stale = tuple(stale)
        for run in stale:
            if run.run_id not in known:
                emit(
                    "warning",
                    text=f"run {run.run_id}, created at {run.created_at:%Y-%m-%d %H:%M} UTC, counts as over: "
                    f"Kubeflow calls it {run.state} longer than a run may take; its workflow is probably gone",
                )

    def pages(self, page: Callable[[str], _Page], name: str, read: Callable[[Any], Item]) -> Iterator[tuple[Item, ...]]:
        """Yield a listing page by page.

        Args:
            page: Function from a token to its page; '' is the first page's token.
            name: Field of the page with its list.
            read: Function from an entry of the list to the item to yield.
        """
        tokens = {""}
        token = ""
        while True:
            with kubeflow_client.errors(self.endpoint):
                answer = page(token)
                items = tuple(read(item) for item in getattr(answer, name) or ())
                token = answer.next_page_token or ""
                if token and (token in tokens or not items):
                    raise ValueError(f"the listing of {name} has no end")
            yield items
            if not token:
                return
            tokens.add(token)

    def _json(self, path: str, **query: str) -> dict[str, Any]:
        """Return what the API answers to a GET, without the client's models."""

        def get() -> dict[str, Any]:
            answer: dict[str, Any] = self.client._run_api.api_client.call_api(
                path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
            )
            return answer

        return self.ask(get)

    def ask(self, call: Callable[[], Answer]) -> Answer:
        """Return the result of a call of the client; its errors become ours."""
        with kubeflow_client.errors(self.endpoint):
            return call()

    def follow(
        self, run_id: str, seconds: float, show: Callable[[str], None], patience: float = PATIENCE_SECONDS
    ) -> Run:
        """Wait for a run's end; show a line whenever a stage, or one of its shards, changes its state.

        Args:
            run_id: ID of the run.
            seconds: Time between two looks.
            show: Function that shows a line.
            patience: Time for which the API may fail, or refuse, before the error is raised, in seconds.
        """
        shown: dict[str, str] = {}
        failing_since: float | None = None
        wait = seconds
        while True:
            try:
                run = self.run(run_id)
                failing_since, wait = None, seconds
            except AlfamixError as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now - failing_since >= patience:
                    lost = f"run {run_id} could not be followed for {patience:g} s and may continue on Kubeflow"
                    raise type(error)(f"{lost}: {error}") from None
                wait = min(wait * 2, max(seconds, _LONGEST_WAIT))
                time.sleep(min(wait, max(0.0, failing_since + patience - now)))
                continue
            for name, line in _changed(run.stages, shown):
                shown[name] = line
                show(line)
            if self.is_over(run):
                return run
            time.sleep(seconds)


def _changed(stages: dict[str, Stage], shown: dict[str, str]) -> Iterable[tuple[str, str]]:
    lines = {name: stage.line(name) for name, stage in stages.items()}
    return [(name, line) for name, line in lines.items() if shown.get(name) != line]


@functools.cache
def _compiled(settings: bytes) -> bytes:
    """Return the compiled pipeline for a platform's settings; it takes a second or two, once per process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "round.yaml"
        compile_round(path, PlatformSettings.parse(settings, "the platform's settings"))
        return path.read_bytes()


def parameters(run: api.V2beta1Run | api.V2beta1RecurringRun) -> dict[str, Any]:
    """Return the parameters of a run or of a recurring run."""
    config = run.runtime_config
    return dict(config.parameters or {}) if config is not None else {}


def _of_listed(run: api.V2beta1Run) -> Run:
    error = run.error.message if run.error is not None else ""
    return Run(
        run_id=text(run, "run_id"),
        state=str(run.state or ""),
        error=str(error or ""),
        created_at=_moment(run.created_at),
        recurring_run_id=str(run.recurring_run_id or ""),
    )


def _moment(value: object) -> datetime | None:
    """Return a time in an answer, which is UTC if it names no zone; None for anything else."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


_NOT_ENDED = json.dumps(
    {"predicates": [{"operation": "NOT_EQUALS", "key": "state", "stringValue": state} for state in ENDED]}
)
