"""Servers between the client and S3 that do to it what networks and lesser servers do."""

import http.client
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FAULTS = ("error", "refuse", "stall", "reset", "lose", "slow", "truncate")

_SLOW_SECONDS = 0.5
_HOP_BY_HOP = ("transfer-encoding", "connection")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""  # what boto3 sends by TLS: of a length that is not said before
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        self.close_connection = not self.server.serve(self)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any


class Server(ThreadingHTTPServer):
    """A server on a free port of this machine; what it answers is said by ``serve``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, request) -> bool:
        """Answer one request; return whether the connection stays open."""
        raise NotImplementedError

    def handle_error(self, *_):
        pass  # a client that gave up

    @contextmanager
    def running(self) -> Iterator["Server"]:
        """Serve while the block lasts."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class Proxy(Server):
    """Passes everything on to a real server, except for the faults asked for.

    A fault is a pattern of method and path, and what is done to the next such request, once:

        error     500, not passed on               lose      passed on, the answer thrown away
        refuse    503, not passed on               slow      the answer comes in pieces, for half a second
        reset     closed, not passed on            truncate  half of the answer's body
        stall     not passed on, no answer until ``stall_seconds`` are over: the client's time-out

    ``disturb`` does one of them, by chance, to a share of all requests.
    """

    def __init__(self, target: str, stall_seconds: float = 5):
        super().__init__()
        self.target = urlsplit(target).netloc
        self.faults: list[tuple[str, str]] = []
        self.seen: list[str] = []
        self.done: Counter[str] = Counter()
        self._stall_seconds = stall_seconds
        self._share, self._random = 0.0, random.Random()
        self._taking = threading.Lock()

    def disturb(self, share: float, seed: int) -> None:
        """Do a fault, by chance, to this share of the requests from now on."""
        with self._taking:
            self._share, self._random = share, random.Random(seed)

    def serve(self, request):
        body = request.body()
        kind = self._take(f"{request.command} {request.path}")
        if kind in ("error", "refuse"):
            request.answer(500 if kind == "error" else 503, [("Content-Length", "0")], b"")
            return True
        if kind == "stall":
            time.sleep(self._stall_seconds)
        if kind in ("reset", "stall"):
            return False
        status, headers, content = self._pass_on(request, body)
        if kind == "lose":
            return False
        if kind == "slow":
            self._trickle(request, status, headers, content)
            return True
        request.answer(status, headers, content[: len(content) // 2] if kind == "truncate" else content)
        return kind != "truncate"

    def _take(self, what: str) -> str | None:
        with self._taking:
            self.seen.append(what)
            fault = next((fault for fault in self.faults if re.match(fault[0], what)), None)
            if fault:
                self.faults.remove(fault)
            kind = fault[1] if fault else None
            if kind is None and self._random.random() < self._share:
                kind = self._random.choice(FAULTS)
            if kind:
                self.done[kind] += 1
            return kind

    def _pass_on(self, request, body):
        left_out = ("expect", "transfer-encoding")  # the body is whole
        headers = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        kept = [pair for pair in answer.getheaders() if pair[0].lower() not in _HOP_BY_HOP]
        if answer.getheader("Content-Length") is None:
            kept.append(("Content-Length", str(len(content))))
        return answer.status, kept, content

    def _trickle(self, request, status, headers, content):
        pieces = 5
        size = len(content) // pieces + 1
        request.answer(status, headers, b"")
        for start in range(0, len(content), size):
            request.wfile.write(content[start : start + size])
            request.wfile.flush()
            time.sleep(_SLOW_SECONDS / pieces)


class SecureProxy(Proxy):
    """A proxy that clients reach by TLS, with a certificate of one's own."""

    def __init__(self, target: str, certificate: Path, key: Path):
        super().__init__(target)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # the handshake belongs to the connection's own thread: one client that fails must not hold up the next
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = f"https://127.0.0.1:{self.server_address[1]}"


class Forgetful(Proxy):
    """A proxy in front of a real server that loses some headers and signs the request anew without them."""

    def __init__(self, target: str, access_key: str, secret_key: str, *dropped: str):
        super().__init__(target)
        self._credentials = Credentials(access_key, secret_key)
        self._dropped = {name.lower() for name in dropped}

    def _pass_on(self, request, body):
        left_out = {*self._dropped, "authorization", "host"}
        kept = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
        signed = AWSRequest(request.command, f"http://{self.target}{request.path}", headers=kept, data=body)
        S3SigV4Auth(self._credentials, "s3", "us-east-1").add_auth(signed)
        request.headers = {"Host": self.target, **dict(signed.headers.items())}
        return super()._pass_on(request, body)


class Shifted(Proxy):
    """A proxy in front of a real server whose clock is wrong: ``seconds`` are added to the Date of every answer.

    Where ``date`` is set, every answer has that text instead.
    """

    def __init__(self, target: str):
        super().__init__(target)
        self.seconds, self.date = 0.0, ""

    def _pass_on(self, request, body):
        status, headers, content = super()._pass_on(request, body)
        kept = [pair for pair in headers if pair[0].lower() != "date"]
        return status, [*kept, ("Date", self.date or formatdate(time.time() + self.seconds, usegmt=True))], content


class Careless(Server):
    """A server of S3's protocol that keeps objects and ignores every condition."""

    def __init__(self):
        super().__init__()
        self.objects: dict[str, bytes] = {}

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


class Listing(Server):
    """A bucket of so many keys, listed a page of 1,000 at a time as S3 does it, and nothing else."""

    def __init__(self, count: int):
        super().__init__()
        self.count, self.pages = count, 0

    def serve(self, request):
        request.body()
        asked = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        start = int(asked.get("continuation-token", 0))
        end = min(self.count, start + min(1_000, int(asked.get("max-keys", 1_000))))
        self.pages += 1
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.count else ""
        found = "".join(
            f"<Contents><Key>{asked['prefix']}{number:06}.png</Key><Size>{number}</Size>"
            f"<ETag>&quot;{number:032x}&quot;</ETag></Contents>"
            for number in range(start, end)
        )
        text = (
            f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{found}</ListBucketResult>"
        ).encode()
        request.answer(200, [("Content-Length", str(len(text)))], text)
        return True


class Refusing(Server):
    """A server that answers everything with one status and error code; it keeps the host and path of each request."""

    def __init__(self):
        super().__init__()
        self.status, self.code, self.location = 400, "Other", ""
        self.asked: list[tuple[str, str]] = []

    def serve(self, request):
        request.body()
        self.asked.append((request.headers["Host"], urlsplit(request.path).path))
        text = f"<Error><Code>{self.code}</Code><Message>Some\nlines\nof words</Message></Error>".encode()
        headers = [("Content-Length", str(len(text))), *([("Location", self.location)] if self.location else [])]
        request.answer(self.status, headers, text)
        return True
