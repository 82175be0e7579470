"""A small Docker engine over real HTTP: as much of its API as the SDK's client calls here.

It runs nothing: a container prints one line and ends with the status that a test sets. It keeps what was asked for.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_LINE = b"one line\n"


class DockerServer:
    """The state of the engine, and what a test reads and sets."""

    def __init__(self) -> None:
        self.created: list[dict] = []
        self.status = 0
        self.endpoint = ""
        self._alive: set[str] = set()

    def answer(self, method: str, path: str, body: dict) -> tuple[int, object]:
        """Return status and body of an answer; bytes are sent as they are."""
        if path == "/version":
            return 200, {"ApiVersion": "1.44"}
        if path == "/containers/create":
            name = f"c{len(self.created)}"
            self.created.append(body)
            self._alive.add(name)
            return 201, {"Id": name, "Warnings": []}
        if method == "GET" and path == "/containers/json":
            return 200, []
        if method == "GET" and re.fullmatch("/(networks|images)/.+", path):
            return 200, {"Id": "sha256:0", "Name": "bridge", "RepoTags": []}
        name, action = re.fullmatch("/containers/(c[0-9]+)/?(.*)", path).groups()
        if name not in self._alive:
            return 404, {"message": f"No such container: {name}"}
        if method == "DELETE":
            self._alive.remove(name)
            return 204, b""
        answers = {
            "json": (200, {"Id": name, "Name": f"/{name}", "Config": {"Tty": False}, "State": {}}),
            "start": (204, b""),
            "logs": (200, b"\1\0\0\0" + len(_LINE).to_bytes(4, "big") + _LINE),  # of standard output
            "wait": (200, {"StatusCode": self.status}),
        }
        return answers[action]

    @property
    def left(self) -> int:
        """Number of containers that were not removed."""
        return len(self._alive)


@contextmanager
def serve() -> Iterator[DockerServer]:
    """Serve on a free port of this machine."""
    state = DockerServer()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = re.sub(r"^/v[0-9.]+", "", urlsplit(self.path).path)
            status, answer = state.answer(self.command, path, json.loads(raw) if raw else {})
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            if status != 204:
                self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.endpoint = f"tcp://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
