"""The embedded default: a whole campaign on scikit-learn's digits, with ALFA-Mix and with random, in minutes.

    python -m pipelines.demo [FOLDER]

It runs the commands that a person would type, shows them, and ends with a table and a report. If it is interrupted,
run it again and it resumes; to start from scratch, remove the folder.
"""

import argparse
import csv
import io
import json
import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from alfamix_core.evaluation.curves import LearningCurve, mean_accuracy
from alfamix_core.project import rounds
from alfamix_core.records.round import Round
from alfamix_core.reports.curve import CurvePoint, measured, point_of
from alfamix_core.reports.gather import project_page
from alfamix_core.storage import file_uri, open_store

ROUNDS = 5
BUDGET = 50
STRATEGIES = ("alfamix", "random")
_START, _TEST = 50, 500
_SHARDS = 3
_SEED = 0
_SETTINGS = (
    "image.channels=grey",
    f"round.max_shards={_SHARDS}",
    "round.shard_size=400",
    f"seed={_SEED}",
)

out = Console(highlight=False, soft_wrap=True)


def write_digits(folder: Path) -> None:
    """Write the digits as PNG files in three drops, and the known answers.

    ``first/`` holds 50 labelled samples and 500 for the test split; ``second/`` and ``third/`` share the pool of
    1,247; ``answers.csv`` is for the oracle.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = list(range(len(digits.images)))
    random.Random(_SEED).shuffle(order)
    answers = io.StringIO()
    writer = csv.writer(answers, lineterminator="\n")
    writer.writerow(("sample_id", "label"))
    manifests: dict[str, list[str]] = {"first": [], "second": [], "third": []}
    for rank, index in enumerate(order):
        sample_id, label = f"digit-{index:04d}", str(digits.target[index])
        writer.writerow((sample_id, label))
        line: dict[str, str] = {"uri": f"{sample_id}.png", "id": sample_id}
        if rank < _TEST:
            drop, line = "first", line | {"label": label, "split": "test"}
        elif rank < _TEST + _START:
            drop, line = "first", line | {"label": label}
        else:
            drop = "second" if rank % 2 else "third"
        (folder / drop).mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[index] * (255 / 16)).round().astype("uint8")
        Image.fromarray(pixels).save(folder / drop / f"{sample_id}.png")
        manifests[drop].append(json.dumps(line) + "\n")
    for drop, lines in manifests.items():
        (folder / drop / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "answers.csv").write_text(answers.getvalue(), encoding="utf-8")


def alfamix(*arguments: str | Path) -> None:
    """Show an `alfamix` command and run it; if it fails, the demo ends with its exit status."""
    words = [_short(str(argument)) for argument in arguments]
    out.print(f"[dim]$[/] alfamix {' '.join(words)}")
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *map(str, arguments)], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _short(text: str) -> str:
    return os.path.relpath(text) if text.startswith("/") else text


def run_campaign(folder: Path, strategy: str) -> list[Round]:
    """Run five rounds of one strategy in a project of its own, with the oracle's answers; return their records."""
    project, data = folder / strategy, folder / "data"
    store = open_store(file_uri(project))
    if store.entry("project.json") is None:
        options = ["--classes", "0,1,2,3,4,5,6,7,8,9", "--strategy", strategy, "--budget", str(BUDGET)]
        options += ["--backbone", "mlp", "--image-size", "8", "--data-prefix", str(data)]
        options += [part for text in _SETTINGS for part in ("--set", text)]
        alfamix("init", project, *options)
    for drop in ("first", "second", "third"):
        alfamix("drop", project, data / drop / "manifest.jsonl", "--name", drop)
    while len(done := [record for record in rounds.read_all(store) if record.outcome]) < ROUNDS:
        if done:
            alfamix("answer", project, "--oracle", data / "answers.csv")
        alfamix("round", project, "--work", folder / "work" / strategy)
    return done[:ROUNDS]


def main() -> None:
    """Run both campaigns and compare them."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".work/demo"))
    folder = parser.parse_args().folder.resolve()
    began = time.monotonic()
    out.print(
        f"[bold]1,797 handwritten digits; {_START} have a label, {_TEST} more are for testing. In each of {ROUNDS} "
        f"rounds {BUDGET} samples are chosen and labelled: by ALFA-Mix, then at random.[/]"
    )
    if not (folder / "data" / "answers.csv").exists():
        write_digits(folder / "data")
    campaigns = {}
    for strategy in STRATEGIES:
        out.print(f"\n[bold]campaign {strategy}[/]")
        campaigns[strategy] = [point_of(record) for record in run_campaign(folder, strategy)]
    out.print()
    out.print(comparison(campaigns))
    page = folder / "report.html"
    page.write_text(project_page(open_store(file_uri(folder / STRATEGIES[0])), datetime.now(UTC), campaigns))
    out.print(f"\n{time.monotonic() - began:.0f} s · report {page}")


def comparison(campaigns: dict[str, list[CurvePoint]]) -> Table:
    """Return accuracy against labels: one row per number of labels, one column per campaign."""
    table = Table(title="accuracy on the test split", title_justify="left", box=None, padding=(0, 3, 0, 0))
    table.add_column("labels", justify="right")
    for name in campaigns:
        table.add_column(name, justify="right")
    for row in zip(*campaigns.values(), strict=True):
        table.add_row(f"{row[0].labels}", *(f"{point.accuracy:.4f}" for point in row))
    means = []
    for points in campaigns.values():
        curve = LearningCurve.of({point.labels: accuracy for point, accuracy in measured(points)})
        means.append(f"{mean_accuracy(curve):.4f}")
    table.add_section()
    table.add_row("mean", *means)
    return table


if __name__ == "__main__":
    main()
