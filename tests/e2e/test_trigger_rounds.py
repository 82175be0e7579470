"""`alfamix trigger` as people run it: data comes, a real round starts; answers come, the next one does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alfamix_core.project import lock, rounds
from alfamix_core.storage import Store, open_store
from tests.conftest import S3Server
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings

SECONDS = 240


@contextmanager
def trigger(project: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the trigger; in the end tell it to stop, which it must do soon and with status 0."""
    command = [sys.executable, "-m", "pipelines.cli", "trigger", project]
    pace = ("--poll", "0.5", "--quiet", "0.5", "--port", "0")
    with log.open("w") as out:
        process = subprocess.Popen([*command, *pace], stdout=out, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def reported(log: Path) -> list[tuple[str, int]]:
    """States and rounds that the trigger has reported so far."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [(event["state"], event["round"]) for event in events]


def wait_for(what: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def is_exported(store: Store, number: int) -> bool:
    return number in rounds.numbers(store) and rounds.read(store, number)[0].state in ("exported", "closed")


def is_free(store: Store) -> bool:
    held = lock.read(store)
    return held is not None and held[0].holder is None


@pytest.mark.slow
@pytest.mark.s3
def test_a_drop_starts_a_round_and_its_answers_the_next_and_a_restart_starts_nothing_twice(
    digits: Path, alfamix: Command, s3_server: S3Server, environment: dict[str, str], tmp_path: Path
):
    environment |= s3_server.environment | {"PYTHONUNBUFFERED": "1"}
    project = f"s3://{s3_server.bucket}/trigger-{os.getpid()}"
    alfamix("init", project, *INIT, *settings(*SMALL, "round.min_new_labels=20", "training.max_epochs=5"))
    store, log = open_store(project), tmp_path / "first.log"
    with trigger(project, environment, log) as first:
        wait_for(lambda: ("watching", 0) in reported(log), log)
        assert rounds.numbers(store) == []
        alfamix("drop", project, digits)
        wait_for(lambda: is_exported(store, 1) and is_free(store), log)
        asked = produced(store, 1, "questions")
        assert len(asked) == 20
        alfamix("answer", project, "--oracle", digits.parent / "answers.csv")
        wait_for(lambda: rounds.numbers(store) == [1, 2], log)
        assert first.poll() is None
    assert [event for event in reported(log) if event[0] in ("started", "stopped")] == [
        ("started", 1),
        ("started", 2),
        ("stopped", 0),
    ]

    again = tmp_path / "second.log"
    with trigger(project, environment, again):
        wait_for(lambda: is_exported(store, 2) and is_free(store), again)
        wait_for(lambda: reported(again)[-1] == ("idle", 0), again)
        assert ("started", 2) not in reported(again), "the run outlived the first trigger, and the second waited for it"
    assert rounds.numbers(store) == [1, 2]
    assert len(produced(store, 2, "questions")) == 20
    assert len({line["sample_id"] for line in asked + produced(store, 2, "questions")}) == 40
