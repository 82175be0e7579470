"""A Kubeflow Pipelines API, by its own client: the pipeline's version there, runs, and what became of them.

The client alone would wait for ever for a server that does not answer, try a refused login five times, print links
among our output and keep a namespace in a file; here it does not.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kfp
import kfp_server_api as api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from alfamix_core import __version__
from alfamix_core.errors import InputError, StorageError
from alfamix_core.records.project import Project
from alfamix_core.telemetry.events import emit
from pipelines import platform_settings
from pipelines.compile import compile_round
from pipelines.engines import kubeflow_stages
from pipelines.engines.kubeflow_stages import Stage
from pipelines.platform_settings import PlatformSettings

ENDPOINT = "KF_PIPELINES_ENDPOINT"
TOKEN = "ALFAMIX_KUBEFLOW_TOKEN"
"""A bearer token; without it the pod's own, at $KF_PIPELINES_SA_TOKEN_PATH, where that is mounted."""
CA = "ALFAMIX_KUBEFLOW_CA"
"""A file with the certificate authority of the API, where the system does not know it."""

PIPELINE = "alfamix-round"
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
MARGIN = timedelta(hours=2)
"""After a run's time limit: for its exit task, for a workflow that waited, for clocks. It is over then."""
_POD_TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"
_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS = (10, 60)  # to connect, without a byte
_PAGE = 100


class _Client(kfp.Client):  # type: ignore[misc]  # kfp has no types
    """The SDK's client, less what waits and writes on its own."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once, for whoever calls tries again."""
        return self._healthz_api.healthz_service_get_healthz()

    def set_user_namespace(self, namespace: str) -> None:
        """Take the namespace for this client alone, without a file in the home folder."""
        self._context_setting["namespace"] = namespace


@dataclass(frozen=True)
class Run:
    """A run as the API describes it.

    Attributes:
        run_id: id of the run.
        state: PENDING, RUNNING, SUCCEEDED, FAILED …, '' before there is one.
        stages: stages that have begun, in the order of the round; none in a listing.
        error: error of the run, in the API's words.
        created_at: when it was created, None where the API does not say.
        recurring_run_id: id of the recurring run that started it, '' for none.
    """

    run_id: str
    state: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)
    error: str = ""
    created_at: datetime | None = None
    recurring_run_id: str = ""

    @property
    def in_flight(self) -> bool:
        """Whether the API says that it has not ended; see ``Kubeflow.is_over``."""
        return self.state not in ENDED


class Kubeflow:
    """One API. Every method raises InputError when it refuses what was asked, StorageError when it cannot answer."""

    def __init__(self, endpoint: str, namespace: str = "") -> None:
        """Connect; token, certificate authority and the platform's settings come from the environment.

        Args:
            endpoint: such as http://ml-pipeline.kubeflow:8888.
            namespace: of a multi-user deployment; empty for the pod's own, or for a single-user deployment.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise InputError(
                f'--endpoint: must be the http:// or https:// address of a Kubeflow Pipelines API, not "{endpoint}"; '
                f"${ENDPOINT} is its default"
            )
        self.endpoint = endpoint.rstrip("/")
        self.platform = platform_settings.from_environment()
        token = os.environ.get(TOKEN)
        pod_token = os.environ.get(_POD_TOKEN_PATH, _POD_TOKEN)
        from_pod = not token and Path(pod_token).exists()
        with self._asked(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "only works with v2.0.0-beta.2 and later"
            self.client = _Client(
                self.endpoint,
                existing_token=token,
                credentials=ServiceAccountTokenVolumeCredentials(pod_token) if from_pod else None,
                ssl_ca_cert=os.environ.get(CA),
                **({"namespace": namespace} if namespace else {}),
            )
        rest = self.client._run_api.api_client.rest_client
        rest.request = _within(rest.request)
        self.namespace = self.client.get_user_namespace() or None
        self.stale: tuple[Run, ...] = ()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Turn what the client raises into our errors, and keep what it prints out of our output."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except api.ApiException as error:
            said = _message(error)
            if error.status in (401, 403):
                raise InputError(
                    f"{self.endpoint} refused the login (HTTP {error.status}): set ${TOKEN} to a valid token; {said}"
                ) from None
            if error.status and 400 <= error.status < 500 and error.status not in (408, 429):
                raise InputError(f"{self.endpoint} refused (HTTP {error.status}): {said}") from None
            status = f"HTTP {error.status}: " if error.status else ""
            raise StorageError(f"{self.endpoint} failed: {status}{said}") from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise StorageError(f"{self.endpoint} cannot be reached: {reason}") from None

    def experiment(self, project: Project) -> str:
        """Return the id of the experiment that holds the project's runs; it is made where there is none."""
        with self._asked():
            made = self.client.create_experiment(f"alfamix-{project.name}", namespace=self.namespace)
        if not made.experiment_id:
            raise self._stranger("/apis/v2beta1/experiments")
        return str(made.experiment_id)

    def version(self) -> tuple[str, str]:
        """Return pipeline id and version id of this code's pipeline on this platform; it is uploaded where missing.

        The version's name holds a digest of the compiled pipeline: same code, same version, whoever uploads it.
        """
        package = _compiled(self.platform.document())
        name = f"{__version__}-{hashlib.sha256(package).hexdigest()[:12]}"
        pipeline = self._pipeline()
        found = self._version(pipeline, name)
        if found is None:
            try:
                with tempfile.TemporaryDirectory() as folder, self._asked():
                    path = Path(folder) / "round.yaml"
                    path.write_bytes(package)
                    made = self.client.upload_pipeline_version(str(path), name, pipeline_id=pipeline)
                found = str(made.pipeline_version_id)
            except InputError:
                found = self._version(pipeline, name)  # another was quicker
                if found is None:
                    raise
        return pipeline, found

    def _pipeline(self) -> str:
        for attempt in (1, 2):
            with self._asked():
                listed = self.client.list_pipelines(filter=_named(PIPELINE), namespace=self.namespace)
            if listed.pipelines:
                return str(listed.pipelines[0].pipeline_id)
            wanted = api.V2beta1Pipeline(display_name=PIPELINE, name=PIPELINE, namespace=self.namespace)
            try:
                with self._asked():
                    return str(self.client.pipelines.pipeline_service_create_pipeline(wanted).pipeline_id)
            except InputError:
                if attempt == 2:
                    raise
        raise AssertionError("the second attempt returns or raises")

    def _version(self, pipeline: str, name: str) -> str | None:
        with self._asked():
            found = self.client.list_pipeline_versions(pipeline, filter=_named(name)).pipeline_versions
        return str(found[0].pipeline_version_id) if found else None

    def start(self, project: Project, project_uri: str, force: bool = False, fresh: bool = False) -> str:
        """Start a run of the round's pipeline and return its id; ``ingest`` decides whether it becomes a round."""
        pipeline, version = self.version()
        experiment = self.experiment(project)
        with self._asked():
            run = self.client.run_pipeline(
                experiment,
                f"alfamix-{project.name} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}",
                params={"project_uri": project_uri, "force": force, "fresh": fresh},
                pipeline_id=pipeline,
                version_id=version,
                service_account=self.platform.service_account or None,
            )
        if not run.run_id:
            raise self._stranger("/apis/v2beta1/runs")
        return str(run.run_id)

    def link(self, run_id: str) -> str:
        """Return where a person can look at a run.

        On a Kubeflow of many users its pages are below the dashboard's ``/_/pipeline``, unless the address of the pages
        has a path of its own, and show nothing before they know the namespace.
        """
        pages = os.environ.get("KF_PIPELINES_UI_ENDPOINT", self.endpoint).rstrip("/")
        if self.namespace:
            below = pages if urlsplit(pages).path else f"{pages}/_/pipeline"
            return f"{below}/?ns={quote(self.namespace)}#/runs/details/{run_id}"
        return f"{pages}/#/runs/details/{run_id}"

    def api_version(self) -> str:
        """Return the release that the API says it is, else its commit, else ''."""
        said = self._json("/apis/v2beta1/healthz")
        names = (str(said.get(name) or "") for name in ("tag_name", "commit_sha"))
        return next((name for name in names if name not in ("", "unknown")), "")

    def run(self, run_id: str) -> Run:
        """Return a run as it is now, with its stages."""
        # the client has a model of release 2.17, which drops the tasks of 2.18; and 2.17 ignores the view
        path = f"/apis/v2beta1/runs/{quote(run_id, safe='')}"
        found = self._json(path, view="FULL")
        if found.get("run_id") != run_id:
            raise self._stranger(path)
        return _of_json(found)

    def is_over(self, run: Run) -> bool:
        """Whether a run has ended, or is so old that it must have.

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
        token = ""
        while True:
            with self._asked():
                page = self.client.list_runs(
                    token, _PAGE, sort_by="created_at desc", experiment_id=experiment, filter=_NOT_ENDED
                )
            listed = [(_of_listed(each), parameters(each).get("project_uri")) for each in page.runs or ()]
            for run, uri in listed:
                if uri == project_uri:
                    (stale if self._is_stale(run) else fresh).append(run)
            token = page.next_page_token or ""
            if not token or any(self._is_stale(run) for run, _ in listed):
                break
        self._tell_of(stale)
        return fresh

    def _tell_of(self, stale: list[Run]) -> None:
        known = {run.run_id for run in self.stale}
        self.stale = tuple(stale)
        for run in stale:
            if run.run_id not in known:
                emit(
                    "warning",
                    text=f"run {run.run_id}, created at {run.created_at:%Y-%m-%d %H:%M} UTC, is taken as over: "
                    f"Kubeflow calls it {run.state} longer than a run may take; its workflow is probably gone",
                )

    def pages(self, page: Callable[[str], Any], what: str) -> Iterator[Any]:
        """Yield everything of a listing, page by page.

        Args:
            page: returns the page of a token; '' is the first.
            what: the name of its list.
        """
        token = ""
        while True:
            with self._asked():
                answer = page(token)
            yield from getattr(answer, what) or ()
            token = answer.next_page_token or ""
            if not token:
                return

    def _json(self, path: str, **query: str) -> dict[str, Any]:
        """Return what the API answers to a GET, without the client's models."""
        with self._asked():
            found = self.client._run_api.api_client.call_api(
                path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
            )
        if not isinstance(found, dict):
            raise self._stranger(path)
        return found

    def _stranger(self, path: str) -> StorageError:
        return StorageError(
            f"{self.endpoint}{path}: the answer is not one of the Kubeflow API; is a page to log in before it, or has "
            "the token expired?"
        )

    def ask(self, call: Callable[[], Any]) -> Any:
        """Return what a call of the client returns, its errors as ours."""
        with self._asked():
            return call()

    def follow(self, run_id: str, seconds: float, show: Callable[[str], None]) -> Run:
        """Wait for a run's end; show a line whenever a stage, or one of its shards, changes its state.

        An API that is away for a moment is asked again, for ten times as long as one look takes.

        Args:
            run_id: of the run.
            seconds: between two looks.
            show: takes a line.
        """
        shown: dict[str, str] = {}
        failures = 0
        while True:
            try:
                run = self.run(run_id)
                failures = 0
            except StorageError:
                failures += 1
                if failures == 10:
                    raise
                time.sleep(seconds)
                continue
            for name, stage in run.stages.items():
                line = stage.line(name)
                if shown.get(name) != line:
                    shown[name] = line
                    show(line)
            if self.is_over(run):
                return run
            time.sleep(seconds)


@functools.cache
def _compiled(settings: bytes) -> bytes:
    """Return the compiled pipeline for a platform's settings: a second or two of work, once a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "round.yaml"
        compile_round(path, PlatformSettings.parse(settings, "the platform's settings"))
        return path.read_bytes()


def parameters(run: Any) -> dict[str, Any]:
    """Return the parameters of a run or of a recurring run."""
    config = run.runtime_config
    return dict(config.parameters or {}) if config is not None else {}


def _of_listed(run: Any) -> Run:
    error = run.error.message if run.error is not None else ""
    return Run(
        run_id=str(run.run_id),
        state=str(run.state or ""),
        error=str(error or ""),
        created_at=run.created_at,
        recurring_run_id=str(run.recurring_run_id or ""),
    )


def _of_json(run: dict[str, Any]) -> Run:
    created = run.get("created_at")
    return Run(
        run_id=str(run.get("run_id") or ""),
        state=str(run.get("state") or ""),
        stages=kubeflow_stages.of_run(run),
        error=str((run.get("error") or {}).get("message") or ""),
        created_at=datetime.fromisoformat(str(created)) if created else None,
        recurring_run_id=str(run.get("recurring_run_id") or ""),
    )


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


_NOT_ENDED = json.dumps(
    {"predicates": [{"operation": "NOT_EQUALS", "key": "state", "stringValue": state} for state in ENDED]}
)


def _message(error: api.ApiException) -> str:
    """Return what the API says of an error, on one line."""
    try:
        said = json.loads(error.body)
        text = said.get("message") or said.get("error") or error.reason
    except (ValueError, TypeError, AttributeError):
        text = error.body if isinstance(error.body, str) and error.body else error.reason
    return " ".join(str(text).split())[:500]


def _within(request: Callable[..., Any]) -> Callable[..., Any]:
    """Return the client's request with a time limit, which it has not by itself."""

    def limited(*arguments: Any, _request_timeout: Any = None, **named: Any) -> Any:
        return request(*arguments, _request_timeout=_request_timeout or _SECONDS, **named)

    return limited
