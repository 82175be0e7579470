"""A small Kubeflow Pipelines API over real HTTP: as much of v2beta1 as the SDK's client calls here.

It keeps its state in memory, checks what the real one checks, pages its listings, and kills the runs in flight of a
recurring run that is deleted, as the real one does. A test moves runs on and breaks the server on purpose.

It answers as one of two releases. The tasks of a run were written after their source: backend/src/common/util/
workflow.go, backend/src/apiserver/server/api_converter.go and backend/src/v2/compiler/argocompiler/dag.go of 2.17.0,
and backend/api/v2beta1/run.proto of pull request 13986, which becomes 2.18.
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeflowServer:
    """The state of the server, and what a test reads and changes."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict] = {}
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.recurring: dict[str, dict] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing: list[int] = []  # statuses with which the next requests fail
        self.failing_on = ""  # only requests whose method and path end so
        self.answers: int | None = None  # requests until the server dies; None for never
        self.last_wish = False  # whether it still does what the request asks at which it dies
        self.before: Callable[[str], None] = lambda client: None  # called before each request of a client
        self.after: Callable[[], None] = lambda: None  # called after each request
        self.blind: dict[str, int] = {}  # how many listings of a kind come out empty
        self.distort: Callable[[str, dict], dict | bytes] | None = None  # makes another answer of one, or other bytes
        self.token = ""  # that a request must have
        self.multi_user = False
        self.release = "2.17.0"  # or 2.18.0; which drivers a recurring run has is decided when it is made
        self.page = 2  # small, so that every listing is paged
        self.rest: dict[str, list[dict]] = {}  # what each token of a page leads to
        self.lock = threading.RLock()
        self.next = itertools.count(1)
        self.draw: Callable[[], object] = lambda: next(self.next)  # ids of recurring runs, random on a real one
        self.endpoint = ""

    def fire(self, recurring_run_id: str, state: str = "RUNNING") -> str:
        """Start the run of a recurring run, as its controller would."""
        recurring = self.recurring[recurring_run_id]
        assert recurring["mode"] == "ENABLE"
        return self.add_run({**recurring, "recurring_run_id": recurring_run_id}, state)

    def add_run(self, body: dict, state: str = "PENDING") -> str:
        with self.lock:
            run_id = f"run-{next(self.next)}"
            kept = ("experiment_id", "display_name", "runtime_config", "pipeline_version_reference", "recurring_run_id")
            kept += ("service_account",)
            self.runs[run_id] = {"run_id": run_id, "state": state, "created_at": now()} | {
                key: body[key] for key in kept if key in body
            }
            return run_id

    def move(self, run_id: str, state: str, shards: int = 1, **stages: str | list[str]) -> None:
        """Bring a run into a state, and stages of it.

        A stage in the loop has a state for each shard that has begun. A DAG that Argo repeated leaves older ones in
        front of them.
        """
        begun = {name: [states] if isinstance(states, str) else states for name, states in stages.items()}
        self.runs[run_id]["state"] = state
        if self.release.startswith("2.17"):
            self.runs[run_id]["run_details"] = {"task_details": argo_nodes(run_id, shards, begun)}
        else:
            self.runs[run_id]["tasks"] = tasks_of_the_api(run_id, shards, begun)

    def age(self, run_id: str, hours: float) -> None:
        """Make a run older."""
        at = datetime.now(UTC) - timedelta(hours=hours)
        self.runs[run_id]["created_at"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")

    # what requests do

    def answer(self, method: str, path: str, query: dict[str, str], body: dict, headers) -> dict:
        self.requests.append((method, path))
        if self.answers is not None:
            self.answers -= 1
            if self.answers < 0 and not (self.answers == -1 and self.last_wish):
                raise RefusedError(504, "dead on purpose")
        found = self.route(method, path, query, body, headers)
        if self.answers == -1:
            raise RefusedError(504, "the answer is lost on purpose")
        return found

    def route(self, method: str, path: str, query: dict[str, str], body: dict, headers) -> dict:
        if self.failing and f"{method} {path}".endswith(self.failing_on):
            raise RefusedError(self.failing.pop(0), "broken on purpose")
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthenticated")
        for verb, pattern, handler in ROUTES:
            found = re.fullmatch("/apis/v2beta1/" + pattern, path)
            if verb == method and found:
                return handler(self, *map(unquote, found.groups()), query=query, body=body)
        raise RefusedError(404, f"no such path: {method} {path}")

    def health(self, query, body):
        return {"commit_sha": "0123abc", "tag_name": self.release, "multi_user": self.multi_user}

    def check_namespace(self, namespace):
        if self.multi_user and not namespace:
            raise RefusedError(400, "Invalid input error: a namespace is required in multi-user mode")
        if namespace and not self.multi_user:
            raise RefusedError(400, "Invalid input error: in single-user mode there must be no namespace")

    def listing(self, what, items, query):
        if self.blind.get(what):
            self.blind[what] -= 1
            return {}
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
            key, wanted = predicate["key"], predicate["stringValue"]
            assert key in ("display_name", "state")
            equal = predicate["operation"] in (1, "EQUALS")  # both are one in filter.proto
            assert equal or predicate["operation"] in (2, "NOT_EQUALS")
            items = [item for item in items if (item[key] == wanted) == equal]
        key, _, order = query.get("sort_by", "").partition(" ")
        if key:
            items = sorted(items, key=lambda item: item[key], reverse=order == "desc")
        if query.get("page_token"):
            listed = self.rest.get(query["page_token"], items)
            items = [item for item in listed if item in items]  # what is deleted moves no page
        page = min(int(query.get("page_size") or self.page), self.page)
        token = f"page-{next(self.next)}"
        self.rest[token] = items[page:]
        more = {"next_page_token": token} if items[page:] else {}
        return ({what: items[:page]} if items else {}) | {"total_size": len(items)} | more

    def list_experiments(self, query, body):
        self.check_namespace(query.get("namespace"))
        return self.listing("experiments", list(self.experiments.values()), query)

    def create_experiment(self, query, body):
        self.check_namespace(body.get("namespace"))
        if any(item["display_name"] == body["display_name"] for item in self.experiments.values()):
            raise RefusedError(409, "Already exist error")
        key = f"experiment-{next(self.next)}"
        self.experiments[key] = body | {"experiment_id": key}
        return self.experiments[key]

    def list_pipelines(self, query, body):
        return self.listing("pipelines", list(self.pipelines.values()), query)

    def create_pipeline(self, query, body):
        if any(item["display_name"] == body["display_name"] for item in self.pipelines.values()):
            raise RefusedError(409, "Already exist error")
        key = f"pipeline-{next(self.next)}"
        self.pipelines[key] = body | {"pipeline_id": key}
        return self.pipelines[key]

    def list_versions(self, pipeline_id, query, body):
        if pipeline_id not in self.pipelines:
            raise RefusedError(404, f"Pipeline {pipeline_id} not found")
        matching = [item for item in self.versions.values() if item["pipeline_id"] == pipeline_id]
        return self.listing("pipeline_versions", matching, query)

    def upload_version(self, query, body):
        spec = next(yaml.safe_load_all(body["file"]))
        assert spec["pipelineInfo"]["name"] == "alfamix-round"
        if any(item["display_name"] == query["name"] for item in self.versions.values()):
            raise RefusedError(409, "Already exist error")
        key = f"version-{next(self.next)}"
        self.versions[key] = {
            "pipeline_version_id": key,
            "pipeline_id": query["pipelineid"],
            "display_name": query["name"],
            "pipeline_spec": spec,
        }
        return self.versions[key]

    def check_job(self, body):
        if body["experiment_id"] not in self.experiments:
            raise RefusedError(404, "Experiment not found")
        reference = body["pipeline_version_reference"]
        version = self.versions.get(reference["pipeline_version_id"])
        if version is None or version["pipeline_id"] != reference["pipeline_id"]:
            raise RefusedError(404, "PipelineVersion not found")
        known = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = body["runtime_config"]["parameters"]
        for name in given:
            if name not in known:
                raise RefusedError(400, f"Invalid input error: unknown parameter {name}")
        for name, parameter in known.items():
            if name not in given and not parameter.get("isOptional"):
                raise RefusedError(400, f"Invalid input error: parameter {name} is required")

    def create_run(self, query, body):
        self.check_job(body)
        return self.runs[self.add_run(body)]

    def get_run(self, run_id, query, body):
        if run_id not in self.runs:
            raise RefusedError(404, f"Run {run_id} not found")
        full = query.get("view") == "FULL"  # 2.17 does not know the parameter, and ignores it
        return {key: value for key, value in self.runs[run_id].items() if full or key != "tasks"}

    def list_runs(self, query, body):
        matching = [item for item in self.runs.values() if item["experiment_id"] == query["experiment_id"]]
        found = self.listing("runs", matching, query)
        short = [{key: value for key, value in run.items() if key != "tasks"} for run in found.get("runs", ())]
        return found | ({"runs": short} if short else {})

    def terminate_run(self, run_id, query, body):
        if self.runs[run_id]["state"] not in ("PENDING", "RUNNING", "PAUSED"):  # as TerminateRun of run_store.go
            raise RefusedError(400, f"Failed to terminate run {run_id}: it is not running")
        self.runs[run_id]["state"] = "CANCELING"
        return {}

    def delete_run(self, run_id, query, body):
        del self.runs[run_id]
        return {}

    def delete_experiment(self, experiment_id, query, body):
        del self.experiments[experiment_id]
        return {}

    def delete_version(self, pipeline_id, version_id, query, body):
        del self.versions[version_id]
        return {}

    def create_recurring(self, query, body):
        self.check_job(body)
        if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise RefusedError(400, "Invalid input error: Schedule cron is not a valid cron expression")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise RefusedError(400, "Invalid input error: max concurrency must be 1 to 10")
        key = f"recurring-{self.draw()}"
        filled_in = {"service_account": body.get("service_account") or "pipeline-runner"}
        self.recurring[key] = body | filled_in | {"recurring_run_id": key, "created_at": now()}
        return self.recurring[key]

    def list_recurring(self, query, body):
        matching = [item for item in self.recurring.values() if item["experiment_id"] == query["experiment_id"]]
        return self.listing("recurringRuns", matching, query)

    def mode(self, key, verb, query, body):
        if key not in self.recurring:
            raise RefusedError(404, f"RecurringRun {key} not found")
        self.recurring[key]["mode"] = verb.upper()
        return {}

    def delete_recurring(self, key, query, body):
        if key not in self.recurring:
            raise RefusedError(404, f"RecurringRun {key} not found")
        del self.recurring[key]
        for run in self.runs.values():
            if run.get("recurring_run_id") == key and run["state"] not in ENDED:
                run["state"] = "CANCELED"
        return {}


ROUTES = [
    ("GET", "healthz", KubeflowServer.health),
    ("GET", "experiments", KubeflowServer.list_experiments),
    ("POST", "experiments", KubeflowServer.create_experiment),
    ("GET", "pipelines", KubeflowServer.list_pipelines),
    ("POST", "pipelines", KubeflowServer.create_pipeline),
    ("POST", "pipelines/upload_version", KubeflowServer.upload_version),
    ("GET", "pipelines/([^/]+)/versions", KubeflowServer.list_versions),
    ("POST", "runs", KubeflowServer.create_run),
    ("GET", "runs", KubeflowServer.list_runs),
    ("GET", "runs/([^/]+)", KubeflowServer.get_run),
    ("POST", "runs/([^/:]+):terminate", KubeflowServer.terminate_run),
    ("DELETE", "runs/([^/]+)", KubeflowServer.delete_run),
    ("DELETE", "experiments/([^/]+)", KubeflowServer.delete_experiment),
    ("DELETE", "pipelines/([^/]+)/versions/([^/]+)", KubeflowServer.delete_version),
    ("POST", "recurringruns", KubeflowServer.create_recurring),
    ("GET", "recurringruns", KubeflowServer.list_recurring),
    ("POST", "recurringruns/([^/:]+):(enable|disable)", KubeflowServer.mode),
    ("DELETE", "recurringruns/([^/]+)", KubeflowServer.delete_recurring),
]


def argo_nodes(run_id: str, shards: int, stages: dict[str, list[str]]) -> list[dict]:
    """Return the nodes of the workflow as task details: wrappers, drivers, and what Argo's default of retries adds."""
    nodes = []

    def node(name: str, state: str) -> None:
        """Add a node and the one attempt at it, for each template has the default of retries."""
        begun = {"start_time": seconds(len(nodes)), "state": state}
        nodes.extend({"run_id": run_id, "display_name": item, **begun} for item in (name, f"{name}(0)"))

    for wrapper in ("root-driver", "root", "round-driver", "round", "a-round-is-due-driver", "a-round-is-due"):
        node(wrapper, "RUNNING")
    if "embed" in stages:
        for wrapper in ("for-loop-1", "iteration-driver"):
            node(wrapper, "RUNNING")
        for index in range(shards):
            node(f"iteration-iterations({index}:{index})", "RUNNING")
            node("iteration-item-driver", "SUCCEEDED")
            node("iteration-item", "RUNNING")
    for stage, states in stages.items():
        if stage == "finish":
            node("round.onExit", "RUNNING")
        for state in states:
            node(f"{stage}-driver", "SUCCEEDED")
            node(stage, state)
            node("executor", state)
    return nodes[::-1]  # a real one sorts them by ids, which are digests


def tasks_of_the_api(run_id: str, shards: int, stages: dict[str, list[str]]) -> list[dict]:
    """Return the tasks of release 2.18; 64-bit numbers are text in JSON, and a pending task is not there yet."""
    tasks = [
        {"run_id": run_id, "name": name, "display_name": shown, "state": "RUNNING", "type": kind}
        for name, shown, kind in (
            ("", "alfamix-birds", "ROOT"),
            ("round", "round", "EXIT_HANDLER"),
            ("a-round-is-due", "Condition", "CONDITION"),
        )
    ]
    if "embed" in stages:
        loop = {"name": "for-loop-1", "display_name": "Loop", "state": "RUNNING", "type": "LOOP"}
        tasks.append({"run_id": run_id, **loop, "type_attributes": {"iteration_count": str(shards)}})
    for stage, states in stages.items():
        for index, state in enumerate(states):
            begun = {"start_time": seconds(len(tasks)), "state": state}
            task = {"run_id": run_id, "name": stage, "display_name": stage, "type": "RUNTIME", **begun}
            tasks.append({**task, "type_attributes": {"iteration_index": str(index)} if len(states) > 1 else {}})
    return [task for task in tasks if task["state"] != "PENDING"]


def seconds(number: int) -> str:
    """Return a time some seconds after the beginning of a day."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def serve() -> Iterator[KubeflowServer]:
    """Serve on a free port of this machine."""
    state = KubeflowServer()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            state.before(self.headers.get("x-client", ""))
            try:
                with state.lock:
                    answer = state.answer(
                        self.command,
                        parts.path,
                        {key: values[0] for key, values in parse_qs(parts.query).items()},
                        parse_body(raw, self.headers.get("content-type", "")),
                        self.headers,
                    )
                status = 200
                answer = state.distort(parts.path, answer) if state.distort else answer
            except RefusedError as refused:
                status, answer = refused.status, {"code": 3, "message": str(refused), "details": []}
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_body(raw: bytes, kind: str) -> dict:
    """Return JSON as it is, and of a form the uploaded file."""
    if kind.startswith("multipart/form-data"):
        boundary = b"--" + kind.partition("boundary=")[2].encode()
        part = next(part for part in raw.split(boundary) if b'name="uploadfile"' in part)
        return {"file": part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()}
    return json.loads(raw) if raw else {}
