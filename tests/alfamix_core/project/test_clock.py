"""No run starts where its clock and the store's disagree."""

import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout, lock
from alfamix_core.project.clock import check_clock
from alfamix_core.project.initialise import initialise
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.storage import FolderStore, open_store
from components.ingest import stage
from tests.servers.s3_proxy import Shifted

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shifted(s3_server, monkeypatch):
    """A store on the real server, behind a proxy that changes the Date of its answers."""
    proxy = Shifted(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    with proxy.running():
        store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
        yield proxy, store
        store.close()


@pytest.mark.s3
def test_the_stores_clock_is_that_of_its_answers(shifted):
    proxy, store = shifted
    for seconds in (0, 3_600, -86_400):
        proxy.seconds = seconds
        assert abs(store.clock() - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(seconds=30)
    for proxy.date in ("yesterday", "Thu, 32 Foo 2026 99:99:99 GMT"):
        assert store.clock() is None


def test_a_folder_has_no_clock_of_its_own(tmp_path):
    store = FolderStore(tmp_path)
    assert store.clock() is None
    check_clock(store, datetime(1970, 1, 1, tzinfo=UTC))


class Telling(FolderStore):
    """A folder whose clock says a given time."""

    def __init__(self, root, told):
        super().__init__(root)
        self.told = told

    def clock(self):
        return self.told


def test_a_minute_is_the_limit_in_both_directions(tmp_path):
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for seconds in (-60, -59, 0, 59, 60):
        check_clock(Telling(tmp_path, noon + timedelta(seconds=seconds)), noon)
    for seconds, told in ((-61, "11:58:59"), (62, "12:01:02"), (86_400, "12:00:00")):
        with pytest.raises(InputError) as refused:
            check_clock(Telling(tmp_path, noon + timedelta(seconds=seconds)), noon)
        said = str(refused.value)
        assert said.startswith("the clock of this machine says 2026-03-01 12:00:00 UTC and that of file:///")
        assert f" {told} UTC; they must not differ by more than 60 s" in said


@pytest.mark.s3
@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_run_with_a_wrong_clock_writes_nothing(shifted, seconds):
    proxy, store = shifted
    initialise(store, Project(name="birds", classes=("cat", "dog"), budget=2))
    store.create(layout.manifest("a"), b"".join(ManifestLine(uri=f"{key}.png", id=key).json_line() for key in "xyz"))
    before = list(store.list())
    proxy.seconds = seconds
    with pytest.raises(
        InputError, match=r"^the clock of this machine says .* UTC; they must not differ by more than 60 s"
    ):
        stage.run(store.uri, Holder(run_id="run-1"))
    assert list(store.list()) == before
    proxy.seconds = 0
    assert stage.run(store.uri, Holder(run_id="run-1")) != stage.IDLE
    assert lock.read(store)[0].holder.run_id == "run-1"


@pytest.mark.s3
def test_no_project_is_made_by_a_wrong_clock(shifted):
    proxy, store = shifted
    proxy.seconds = 600
    command = [sys.executable, "-m", "pipelines.cli", "init", store.uri, "--classes", "cat,dog"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"alfamix: the clock of this machine says [^\n]*, preferably by NTP\n", done.stderr)
    assert list(store.list()) == []
