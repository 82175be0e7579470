"""Projects on real images, and the real command as a process of its own."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from alfamix_core.project import objects, rounds
from alfamix_core.records.round import ObjectName
from alfamix_core.storage import Store, file_uri, open_store

Command = Callable[..., subprocess.CompletedProcess[str]]

CLASSES = ",".join(str(digit) for digit in range(10))
INIT = ("--classes", CLASSES, "--budget", "20", "--backbone", "mlp", "--image-size", "8")
SMALL = ("image.channels=grey", "round.shard_size=60", "round.max_shards=3", "training.max_epochs=20")


def produced(store: Store | Path, number: int, name: ObjectName) -> list[dict[str, Any]]:
    """Return the lines of an object that a round's record names; none if it does not name the object."""
    store = open_store(file_uri(store)) if isinstance(store, Path) else store
    record, _ = rounds.read(store, number)
    lines = objects.read(store, record, name).splitlines() if name in record.objects else []
    return [json.loads(line) for line in lines]


def write_digits(folder: Path, *, labelled: int = 40, test: int = 60, pool: int = 180) -> Path:
    """Write digits as PNG files with a manifest, and the known answers beside them; return the manifest."""
    digits = load_digits()
    folder.mkdir(parents=True)
    lines, answers = [], [("sample_id", "label")]
    for index in range(labelled + test + pool):
        sample_id, label = f"digit-{index:04d}", str(digits.target[index])
        pixels = (digits.images[index] * (255 / 16)).round().astype("uint8")
        Image.fromarray(pixels).save(folder / f"{sample_id}.png")
        line = {"uri": f"{sample_id}.png", "id": sample_id, "group": f"scanner-{index % 5}"}
        if index < labelled:
            line |= {"label": label}
        elif index < labelled + test:
            line |= {"label": label, "split": "test"}
        lines.append(json.dumps(line) + "\n")
        answers.append((sample_id, label))
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    with (folder / "answers.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(answers)
    return folder / "manifest.jsonl"


def settings(*pairs: str) -> list[str]:
    """Return the options that set what the pairs name."""
    return [part for pair in pairs for part in ("--set", pair)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of commands: outputs and cache in a folder of the test."""
    return {**os.environ, "ALFAMIX_WORK": str(tmp_path / "work"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def alfamix(environment: dict[str, str]) -> Command:
    """Run `alfamix` as a user does; a test that expects a failure passes ``status``."""

    def run(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A manifest of 280 digits: 40 labelled, 60 for testing, 180 for the pool."""
    return write_digits(tmp_path / "digits")
