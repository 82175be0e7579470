"""/metrics and /healthz under clients that do what no client should: none of them keeps a scrape from its answer."""

import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project.initialise import initialise
from alfamix_core.records.project import Project
from alfamix_core.storage import open_store
from pipelines.services import health
from pipelines.services.trigger_metrics import TriggerMetrics

IDLE = 800


@contextmanager
def exporter(folder, *options):
    """Run `alfamix exporter` on an empty project; yield process and port; at the end it must have printed no fault."""
    store = open_store(folder.as_uri())
    initialise(store, Project(name="birds", classes=("cat", "dog")))
    command = [sys.executable, "-m", "pipelines.cli", "exporter", store.uri, "--port", "0", *options]
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(command, stderr=errors, env=os.environ | {"COLUMNS": "200"})
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"http://\S+:(\d+)/metrics", (folder / "errors").read_text())):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            while "alfamix_exporter_project_up" not in scrape(int(found[1])):  # the first reading
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process, int(found[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            assert "Traceback" not in (said := (folder / "errors").read_text()), said
            assert "rror" not in said
        finally:
            process.kill()
            process.wait()


def of_process(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def scrape(port, path="/metrics"):
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_800_idle_clients_cost_no_thread_and_a_scrape_is_answered_within_seconds(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * IDLE)), hard))
    with exporter(tmp_path) as (process, port), ExitStack() as clients:
        threads = of_process(process.pid, "Threads")
        for _ in range(IDLE):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        began = time.monotonic()
        assert "alfamix_exporter_project_up" in scrape(port)
        assert scrape(port, "/healthz") == "ok\n"
        assert time.monotonic() - began < 3
        assert of_process(process.pid, "Threads") <= threads
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_that_hang_up_or_talk_nonsense_print_no_traceback(tmp_path):
    with exporter(tmp_path, "--host", "127.0.0.1") as (_, port):
        for sent in (
            b"",
            b"GET /met",
            b"GET /metrics HTTP/1.1\r\n\r\n",
            b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"x" * 100_000,
            b"GET /metrics HTTP/1.1\r\n\r\n" * 1_000,
        ):
            for reset in (False, True):
                client = socket.create_connection(("127.0.0.1", port), timeout=10)
                client.sendall(sent)
                if reset:  # close with RST instead of FIN
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
        assert "alfamix_exporter_project_up" in scrape(port)


@pytest.fixture
def port():
    with health.serve(TriggerMetrics("birds"), 0, 5, "127.0.0.1") as port:
        yield port


def asked(port, request):
    """Send a request and return status, headers and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        data = b"".join(iter(lambda: client.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body


def test_the_answers_are_those_of_http(port):
    status, headers, body = asked(port, b"GET /healthz?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body, headers["Content-Length"], headers["Connection"]) == (200, b"ok\n", "3", "close")
    assert asked(port, b"HEAD /healthz HTTP/1.0\r\n\r\n")[::2] == (200, b"")
    assert asked(port, b"GET /metrics HTTP/1.1\r\n\r\n")[2].startswith(b"# HELP alfamix_trigger_")
    assert asked(port, b"GET / HTTP/1.1\r\n\r\n")[::2] == (404, b"there are /healthz and /metrics\n")
    assert asked(port, b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n")[0] == 405
    assert asked(port, b"hello\r\n\r\n")[0] == 400


def test_a_client_that_sends_a_byte_at_a_time_is_cut_off_after_5_seconds(port):
    def trickle(client):
        for _ in range(100):
            client.sendall(b"x")
            time.sleep(0.2)

    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, pytest.raises(ConnectionError):
        trickle(client)
    assert 4 < time.monotonic() - began < 8


def test_an_address_that_is_not_of_this_machine_is_refused():
    with (
        pytest.raises(InputError, match=r"^--host 192\.0\.2\.1, --port 0: cannot be listened on: "),
        health.serve(TriggerMetrics("birds"), 0, 5, "192.0.2.1"),
    ):
        pass
