"""A round that is killed in any stage resumes, and ends as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from alfamix_core.telemetry.events import parse
from components.stages import STAGES
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings

CACHED = tuple(name for name, stage in STAGES.items() if stage.cached)


def kill_in(stage: str, project: Path, environment: dict[str, str], after: float = 0.0) -> list[dict[str, object]]:
    """Start a round; when the stage begins, kill the command and all its descendants; return the events till then.

    The round may have been exported by the kill before; then there is nothing left to kill, and no event.
    """
    work = Path(environment["ALFAMIX_WORK"])
    before = set(work.glob("**/*.log"))
    command = [sys.executable, "-m", "pipelines.cli", "round", str(project)]
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def events() -> list[dict[str, object]]:
        return [event for path in set(work.glob("**/*.log")) - before for event in events_of(path)]

    deadline = time.monotonic() + 120
    while process.poll() is None and not any(e["alfamix"] == "started" and e["stage"] == stage for e in events()):
        assert time.monotonic() < deadline, f"{stage} did not begin"
        time.sleep(0.02)
    time.sleep(after)
    if process.poll() is None:
        family = [*process.children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family)
    assert process.wait() in (0, -signal.SIGKILL)
    return events()


def events_of(log: Path) -> list[dict[str, object]]:
    return [event for line in log.read_text(encoding="utf-8").splitlines() if (event := parse(line))]


def test_a_round_killed_once_in_every_stage_asks_what_an_undisturbed_one_asks(
    tmp_path: Path, digits: Path, alfamix: Command, environment: dict[str, str]
):
    for name in ("calm", "killed"):
        prefix = ("--data-prefix", digits.parent)
        alfamix("init", tmp_path / name, *INIT, *prefix, *settings(*SMALL))
        alfamix("drop", tmp_path / name, digits)
    alfamix("round", tmp_path / "calm", "--work", tmp_path / "calm-work")

    finished: Counter[tuple[str, str]] = Counter()
    for stage in STAGES:
        for event in kill_in(stage, tmp_path / "killed", environment):
            if event["alfamix"] == "finished":
                finished[str(event["stage"]), str(event["shard"])] += 1
    status = json.loads(alfamix("status", tmp_path / "killed", "--json").stdout)
    if status["rounds"][0]["state"] != "exported":
        alfamix("round", tmp_path / "killed")

    calm, killed = asked(tmp_path / "calm"), asked(tmp_path / "killed")
    assert killed == calm
    assert len(killed) == 20
    assert not (tmp_path / "killed" / "rounds" / "000002").exists()
    # a stage that was killed just when it had finished may run again; one that was over is not repeated
    for (stage, shard), times in finished.items():
        assert stage not in CACHED or times <= 2, f"{stage} {shard} ran {times} times"


def asked(project: Path) -> list[tuple[str, int, str]]:
    return [(line["sample_id"], line["rank"], line["suggestion"]) for line in produced(project, 1, "questions")]
