"""Servers between the client and S3 that do to it what networks and lesser servers do."""

import http.client
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        self.close_connection = not self.server.serve(self)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_):
        pass  # a client that gave up


class Proxy(_Server):
    """Passes everything on to a real server, except for the faults asked for, each of which happens once.

    A fault is a pattern of method and path, and what is done to the next such request: ``refuse`` (503 and not passed
    on), ``reset`` (closed and not passed on), ``lose`` (passed on, the answer thrown away), ``truncate`` (half of the
    answer's body).
    """

    def __init__(self, target):
        super().__init__()
        self.target = urlsplit(target).netloc
        self.faults = []
        self.seen = []
        self._taking = threading.Lock()

    def serve(self, request):
        body = request.body()
        what = f"{request.command} {request.path}"
        with self._taking:
            self.seen.append(what)
            fault = next((fault for fault in self.faults if re.match(fault[0], what)), None)
            if fault:
                self.faults.remove(fault)
        kind = fault[1] if fault else None
        if kind == "refuse":
            request.answer(503, [("Content-Length", "0")], b"")
            return True
        if kind == "reset":
            return False
        headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if kind == "lose":
            return False
        kept = [pair for pair in answer.getheaders() if pair[0].lower() not in ("transfer-encoding", "connection")]
        if answer.getheader("Content-Length") is None:
            kept.append(("Content-Length", str(len(content))))
        request.answer(answer.status, kept, content[: len(content) // 2] if kind == "truncate" else content)
        return kind != "truncate"


class Careless(_Server):
    """A server of S3's protocol that keeps objects and ignores every condition."""

    def __init__(self):
        super().__init__()
        self.objects = {}

    def serve(self, request):
        body = request.body()
        key = urlsplit(request.path).path
        if request.command == "PUT":
            self.objects[key] = body
        elif request.command == "DELETE":
            self.objects.pop(key, None)
        listing = b'<?xml version="1.0"?><ListBucketResult></ListBucketResult>'
        request.answer(200, [("ETag", '"1"'), ("Content-Length", str(len(listing)))], listing)
        return True


class Refusing(_Server):
    """A server that answers everything with one status and error code."""

    def __init__(self):
        super().__init__()
        self.status, self.code = 400, "Other"

    def serve(self, request):
        request.body()
        text = f"<Error><Code>{self.code}</Code><Message>Some\nlines\nof words</Message></Error>".encode()
        request.answer(self.status, [("Content-Length", str(len(text)))], text)
        return True


def _running(server: _Server) -> Iterator[_Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(s3_server, monkeypatch):
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    yield from _running(proxy)


@pytest.fixture
def careless(s3_server, monkeypatch):
    server = Careless()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    yield from _running(server)


@pytest.fixture
def refusing(s3_server, monkeypatch):
    server = Refusing()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield from _running(server)
