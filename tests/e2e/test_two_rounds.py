"""Two people, or a person and the trigger, start a round at the same moment."""

import re
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import INIT, SMALL, settings


@pytest.mark.slow
def test_if_two_rounds_start_within_a_second_one_runs_and_the_other_names_the_holder(
    alfamix, digits, tmp_path, environment
):
    project = tmp_path / "project"
    alfamix("init", project, *INIT, *settings(*SMALL))
    alfamix("drop", project, digits)
    time.sleep(1 - time.time() % 1)  # both begin within one second, where a second names a log
    command = [sys.executable, "-m", "pipelines.cli", "round", str(project)]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2], outputs
    (out, _), (_, refusal) = sorted(outputs, key=lambda pair: "asked 20 queries" not in pair[0])
    assert "asked 20 queries" in out
    assert re.search(r"^alfamix: (no round: )?the project is locked by run \S+ \(process \d+ on \S+\) until ", refusal)
    logs = list((tmp_path / "work").glob("*/logs/*.log"))
    assert len(logs) == 2
    assert all(log.read_bytes().strip(b"\0") == log.read_bytes() for log in logs)
