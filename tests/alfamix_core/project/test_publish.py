"""The ways of the metrics out of a run, and that none of them can fail it."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from alfamix_core.project.publish import publish

GATEWAY = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")


def told(capsys):
    """Return the warning of the last event."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])["warning"]


@contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def gateway():
    with listening() as port:
        pass
    process = subprocess.Popen(
        [GATEWAY, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_nothing_is_published_unless_asked(made, capsys):
    publish(made.store)
    assert capsys.readouterr().out == ""


def test_a_file_for_node_exporter(made, tmp_path, capsys):
    made.drop("a", "x", "y")
    path = tmp_path / "birds.prom"
    made.configure(metrics={"way": "textfile", "path": str(path)})
    for _ in range(2):
        publish(made.store)
        assert told(capsys) == ""
    assert 'alfamix_data_samples{project="birds",split="",state="pool"} 2.0' in path.read_text()
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["birds.prom"]


def test_a_file_that_cannot_be_written_is_one_warning(made, tmp_path, capsys):
    made.configure(metrics={"way": "textfile", "path": str(tmp_path / "not/there.prom")})
    publish(made.store)
    assert told(capsys) == f"metrics were not written to {tmp_path}/not/there.prom: No such file or directory"


def test_a_gateway_that_is_not_there_is_one_warning(made, capsys):
    with listening() as port:
        pass
    made.configure(metrics={"way": "pushgateway", "url": f"http://127.0.0.1:{port}"})
    publish(made.store)
    assert told(capsys) == f"metrics were not pushed to http://127.0.0.1:{port}: [Errno 111] Connection refused"


def test_a_gateway_that_hangs_is_given_up_in_time(made, capsys):
    with listening() as port:
        made.configure(metrics={"way": "pushgateway", "url": f"http://127.0.0.1:{port}", "timeout_seconds": 0.5})
        begun = time.monotonic()
        publish(made.store)
    assert time.monotonic() - begun < 10
    assert "timed out" in told(capsys)


def test_a_project_that_cannot_be_read_is_one_warning(made, capsys):
    made.configure(metrics={"way": "textfile", "path": "/tmp/x.prom"})
    made.store.create("champion.json", b"{\n")
    publish(made.store)
    assert told(capsys).startswith("metrics were not published: ")


@pytest.mark.skipif(GATEWAY is None, reason="no Pushgateway is installed")
def test_a_real_gateway_shows_the_project_and_nothing_stale(made, noon, capsys):
    made.drop("a", "x", "y")
    made.ask(1, "x", at=noon)
    with gateway() as url:
        made.configure(metrics={"way": "pushgateway", "url": url}, queue={"max_open": 5})
        publish(made.store)
        assert told(capsys) == ""
        with urlopen(f"{url}/metrics") as answer:
            first = answer.read().decode()
        assert 'alfamix_queue_last_answer_timestamp_seconds{instance="",job="alfamix",project="birds"}' not in first
        assert 'alfamix_data_samples{instance="",job="alfamix",project="birds",split="",state="pool"} 2' in first
        made.label("one", x="cat")
        publish(made.store)
        with urlopen(f"{url}/metrics") as answer:
            second = answer.read().decode()
        assert (
            'alfamix_data_samples{instance="",job="alfamix",project="birds",split="train",state="labelled"} 1' in second
        )
        assert 'alfamix_data_samples{instance="",job="alfamix",project="birds",split="",state="pool"} 1' in second
