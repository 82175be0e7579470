"""Runs rounds in forked processes, with torch loaded once, and kills them where it is told to.

    python -m tests.servers.stages

reads one request a line, does it, and answers with one line (``Request``, ``Account``), with one more before it where a
stage stops on the way. A run is a process that drives one process a stage, one after the other, as kfp's local runner
does; each calls the component's own body. Outputs are in a folder of the run, and what a finished stage has left is
found again by later runs: the cache of the real thing.
"""

import functools
import importlib
import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHARDS = ("0", "1")
STAGES = (
    *("answer", "ingest", "snapshot", "train", "evaluate"),
    *(f"{stage}-{shard}" for shard in SHARDS for stage in ("embed", "score")),
    *("select", "export", "finish"),
)


@dataclass(frozen=True)
class Request:
    """One run.

    Attributes:
        project: its uri.
        work: folder for outputs, cache and log, kept from run to run.
        run_id: of this run.
        answers: CSV of known answers, given before the round starts.
        answers_only: whether there is no round afterwards.
        kill: the stage in which the run is killed; '' for none.
        after: seconds from the stage's beginning to the kill.
        orphan: kill the driver alone, so that the stage lives on.
        stop: the stage that stops itself, as SIGSTOP does; '' for none.
        before: the write before which it stops, 1 for its first.
        command: arguments of the alfamix command, which is done in place of a run.
    """

    project: str
    work: str
    run_id: str
    answers: str
    answers_only: bool = False
    kill: str = ""
    after: float = 0.0
    orphan: bool = False
    stop: str = ""
    before: int = 1
    command: tuple[str, ...] = ()


@dataclass
class Account:
    """What became of a run.

    Attributes:
        status: exit status of the first stage that failed, 0 when none did or the run was killed.
        killed: the stage in which the kill struck, '' when it did not.
        seconds: of the stages that finished.
        stopped: the process of the stage that stopped and waits for SIGCONT; the run's account follows when it ends.
        text: what a command printed.
    """

    status: int = 0
    killed: str = ""
    stopped: int = 0
    text: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class _StageFailedError(Exception):
    """A stage ended with another exit status than 0."""


class _Run:
    """The driver of one run; ``say`` tells the server how far it is."""

    def __init__(self, request: Request, say: Callable[[str], None]) -> None:
        self._request, self._say = request, say
        self._key = "none"

    def __call__(self) -> int:
        """Run all stages; return the exit status of the first that failed."""
        from alfamix_core.project import lock

        os.environ[lock.DRIVER] = lock.this_process()
        request, status = self._request, 0
        try:
            self._stage("answer", lambda _: _answer(request.project, request.answers))
            if request.answers_only:
                return 0
            self._key = self._stage("ingest", lambda _: _body("ingest", request, force=False, fresh=False))["result"]
            if self._key != "idle":
                self._round()
        except _StageFailedError as error:
            status = error.args[0]
        with suppress(_StageFailedError):
            self._stage("finish", lambda _: _body("finish", request))
        return status

    def _round(self) -> None:
        from kfp import dsl

        request, key = self._request, self._key
        data, model = dsl.Dataset, dsl.Model

        def cached(name: str, **arguments: Any) -> dict[str, Any]:
            return self._stage(name, lambda out: _body(name, request, out, key=key, **arguments), cached=True)

        world = cached("snapshot", snapshot=data, champion=model)
        assert world["result"] == list(SHARDS)
        frozen, champion = data(uri=world["snapshot"]), model(uri=world["champion"])
        fit = cached("train", snapshot=frozen, champion=champion, model=model, labelled=data)
        trained, labelled = model(uri=fit["model"]), data(uri=fit["labelled"])
        measured = self._stage(
            "evaluate",
            lambda out: _body(
                *("evaluate", request, out),
                **{"key": key, "snapshot": frozen, "champion": champion, "model": trained, "evaluation": data},
                **{"metrics": dsl.Metrics, "confusion": dsl.ClassificationMetrics, "mistakes": dsl.Markdown},
            ),
        )
        scores = []
        for shard in SHARDS:
            common = {"shard": shard, "snapshot": frozen, "model": trained}
            features = cached(f"embed-{shard}", **common, features=data)["features"]
            done = cached(f"score-{shard}", **common, labelled=labelled, features=data(uri=features), scores=data)
            scores.append(data(uri=done["scores"]))
        chosen = cached("select", snapshot=frozen, model=trained, labelled=labelled, scores=scores, queries=data)
        self._stage(
            "export",
            lambda out: _body(
                *("export", request, out),
                **{"key": key, "snapshot": frozen, "queries": data(uri=chosen["queries"]), "report": dsl.HTML},
                evaluation=data(uri=measured["evaluation"]),
            ),
        )

    def _stage(self, name: str, body: Callable[[Path], dict[str, Any]], cached: bool = False) -> dict[str, Any]:
        """Run a stage in a process of its own, unless an earlier run has; return its result and outputs."""
        folder = Path(self._request.work) / self._key
        known = folder / f"{name}.json"
        if cached and known.exists():
            return dict(json.loads(known.read_text()))
        out = folder / self._request.run_id / name
        out.mkdir(parents=True, exist_ok=True)
        self._say(f"begin {name}")
        pid = os.fork()
        if pid == 0:
            self._say("")
            if name == self._request.stop:
                _stop_before(self._request.before)
            _exit_with(lambda: (out / "result.json").write_text(json.dumps(body(out))))
        while os.WIFSTOPPED(ended := os.waitpid(pid, os.WUNTRACED)[1]):
            self._say(f"stopped {pid}")
        status = os.waitstatus_to_exitcode(ended)
        self._say(f"end {name}")
        if status:
            raise _StageFailedError(status)
        text = (out / "result.json").read_text()
        if cached:
            (out / "cache.json").write_text(text)
            (out / "cache.json").replace(known)
        return dict(json.loads(text))


def _body(name: str, request: Request, out: Path = Path(), **arguments: Any) -> dict[str, Any]:
    """Call a component's own body; a class among the arguments stands for an output, made in the folder ``out``."""
    stage = name.split("-")[0]
    function = _components()[stage].python_func
    outputs = {key: kind(uri=str(out / key)) for key, kind in arguments.items() if isinstance(kind, type)}
    given = {"project_uri": request.project, "run_id": request.run_id, **arguments, **outputs}
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    result = function(**{key: value for key, value in given.items() if key in wanted})
    return {"result": result, **{key: artifact.uri for key, artifact in outputs.items()}}


def _answer(project: str, answers: str) -> dict[str, Any]:
    from pipelines.cli.labelling import answer

    answer(project, Path(answers))
    return {}


def _components() -> dict[str, Any]:
    from pipelines import round as wiring

    names = {name.split("-")[0] for name in STAGES} - {"answer"}
    return {name: getattr(wiring, name) for name in names}


def _stop_before(number: int) -> None:
    """Make this process stop itself before its write of this number, of objects and tables alike."""
    import deltalake

    from alfamix_core.storage import FolderStore, S3Store

    writes = itertools.count(1)

    def stopping(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def first(*args: Any, **kwargs: Any) -> Any:
            if next(writes) == number:
                os.kill(os.getpid(), signal.SIGSTOP)
            return write(*args, **kwargs)

        return first

    for name in ("create", "mark", "_create_from", "swap", "delete"):
        for kind in (FolderStore, S3Store):
            setattr(kind, name, stopping(getattr(kind, name)))
    deltalake.write_deltalake = stopping(deltalake.write_deltalake)


def _do_command(request: Request) -> Account:
    """Run the alfamix command in a process of its own."""
    path = Path(request.work) / f"{request.run_id}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)

        def work() -> None:
            from pipelines.cli import app

            app(list(request.command), prog_name="alfamix")

        _exit_with(work)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Account(status=status, text=path.read_text(errors="replace"))


def _exit_with(work: Callable[[], object]) -> None:
    """Do the work of a forked process and end it."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except Exception as error:  # ends here: above is the server's code
        traceback.print_exc()
        status = getattr(error, "exit_code", 1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve_one(request: Request, tell: Callable[[Account], None]) -> Account:
    """Do a run, and kill it if that is asked for; tell where it stops on the way."""
    reading, writing = os.pipe()
    driver = os.fork()
    if driver == 0:
        os.close(reading)
        os.setsid()
        log = Path(request.work) / "log"
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)

        def say(line: str) -> None:
            # an empty line is a stage that must not keep the pipe open when its driver is gone
            os.write(writing, f"{time.monotonic()} {line}\n".encode()) if line else os.close(writing)

        def work() -> None:
            sys.exit(_Run(request, say)())

        _exit_with(work)
    os.close(writing)
    account, began, last = Account(), {}, ""
    struck = False
    with os.fdopen(reading) as lines:
        for line in lines:
            moment, what, name = line.split()
            if what == "begin":
                began[name], last = float(moment), name
            elif what == "stopped":
                tell(Account(stopped=int(name), killed=last if request.orphan else ""))
                if request.orphan:
                    os.kill(driver, signal.SIGKILL)
            else:
                account.seconds[name] = float(moment) - began[name]
            if what == "begin" and name == request.kill and not struck:
                time.sleep(request.after)
                struck = True
                if os.waitpid(driver, os.WNOHANG) == (0, 0):
                    (os.kill if request.orphan else os.killpg)(driver, signal.SIGKILL)
                else:
                    return account
    status = os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1])
    if status == -signal.SIGKILL:
        account.killed = last
    else:
        account.status = status
    return account


def main() -> None:
    """Serve until the input ends."""
    import torch

    from alfamix_core.storage import connection

    torch.set_num_threads(1)
    for name in _components():
        importlib.import_module(f"components.{name}.stage")
    connection.Connection().client()  # boto3 and its descriptions, loaded once for all stages
    connection._READ_SECONDS = 2  # a time-out of the proxy's must not take a minute
    print("ready", flush=True)

    def tell(account: Account) -> None:
        print(json.dumps(asdict(account)), flush=True)

    for line in sys.stdin:
        request = Request(**json.loads(line))
        tell(_do_command(request) if request.command else serve_one(request, tell))


if __name__ == "__main__":
    main()
