"""The exporter as a process: what it serves is what the files say, whatever happens to it or them."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from alfamix_core.project import layout
from alfamix_core.project.initialise import initialise
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.storage import open_store
from pipelines.services import exporter as reading
from pipelines.services.exporter import Exporter


@pytest.fixture
def birds(tmp_path):
    store = open_store((tmp_path / "birds").as_uri())
    initialise(store, Project(name="birds", classes=("cat", "dog"), budget=2))
    lines = [ManifestLine(uri=f"{key}.png", id=key).json_line() for key in "xyz"]
    store.create(layout.manifest("a"), b"".join(lines))
    return store


@contextmanager
def exporting(*projects):
    """Run `alfamix exporter`; yield the process and its address."""
    command = [sys.executable, "-m", "pipelines.cli", "exporter", *projects, "--port", "0", "--refresh", "0.5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    try:
        line = process.stderr.readline()
        yield process, re.search(r"http://[\d.:]+", line)[0].replace("0.0.0.0", "127.0.0.1")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def page(address, path="/metrics"):
    with urlopen(f"{address}{path}", timeout=10) as answer:
        return answer.read().decode()


def until_served(address, text, seconds=60):
    deadline = time.monotonic() + seconds
    while text not in (found := page(address)):
        assert time.monotonic() < deadline, f"{text} is not in\n{found}"
        time.sleep(0.2)
    return found


def of_the_project(text):
    """Return the lines that do not depend on the moment."""
    return [line for line in text.splitlines() if line.startswith("alfamix_") and not re.search("_age_|exporter", line)]


@pytest.mark.slow
def test_it_serves_what_the_files_say_ends_on_sigterm_and_a_restart_changes_no_value(birds):
    with exporting(birds.uri) as (process, address):
        before = of_the_project(until_served(address, 'alfamix_exporter_project_up{project_uri="file'))
        assert 'alfamix_data_samples{project="birds",split="",state="pool"} 3.0' in before
        assert page(address, "/healthz") == "ok\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with exporting(birds.uri) as (_, address):
        assert of_the_project(until_served(address, 'alfamix_exporter_project_up{project_uri="file')) == before


@pytest.mark.slow
def test_a_project_that_cannot_be_read_is_down_and_the_others_go_on(birds, tmp_path, capsys):
    gone = (tmp_path / "gone").as_uri()
    exporter = Exporter([gone, birds.uri], refresh=1)
    exporter.read_all()
    exporter.read_all()
    text = exporter.exposition().decode()
    assert f'alfamix_exporter_project_up{{project_uri="{gone}"}} 0.0' in text
    assert f'alfamix_exporter_project_up{{project_uri="{birds.uri}"}} 1.0' in text
    assert 'alfamix_data_samples{project="birds",split="",state="pool"} 3.0' in text
    assert capsys.readouterr().out.count('"warning"') == 1
    birds.create("champion.json", b"{\n")
    exporter.read_all()
    text = exporter.exposition().decode()
    assert f'alfamix_exporter_project_up{{project_uri="{birds.uri}"}} 0.0' in text
    assert 'alfamix_data_samples{project="birds",split="",state="pool"} 3.0' in text


def test_a_reading_that_takes_too_long_is_given_up(birds, capsys, monkeypatch):
    monkeypatch.setattr(reading, "_TIMEOUT", 0.01)
    exporter = Exporter([birds.uri], refresh=1)
    exporter.read_all()
    assert "was not read within 0.01 s" in capsys.readouterr().out
