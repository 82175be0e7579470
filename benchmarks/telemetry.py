"""The time that telemetry costs a round: rounds with it against rounds without it, in one process.

    python -m benchmarks.telemetry [--rounds 4]

runs small rounds on digits, in pairs that end in the same queries: one through the stages' door, with events, marks of
attempts and metrics in a text file; the other by calling the stages alone. It prints the least CPU seconds of both.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from sklearn.datasets import load_digits

from alfamix_core.project import layout
from alfamix_core.project.initialise import initialise
from alfamix_core.project.stages import run_stage
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import ImageSettings, MetricsSettings, ModelSettings, Project
from alfamix_core.storage import open_store
from components.embed import stage as embed
from components.evaluate import stage as evaluate
from components.export import stage as export
from components.finish import stage as finish
from components.ingest import stage as ingest
from components.score import stage as score
from components.select import stage as select
from components.snapshot import stage as snapshot
from components.train import stage as train

SAMPLES, LABELLED, TEST = 320, 120, 60
T = TypeVar("T")


def _write_images(folder: Path) -> list[ManifestLine]:
    """Write digits as PNG files, and return their lines of a manifest."""
    digits, lines = load_digits(), []
    for row in range(SAMPLES):
        path = folder / f"{row}.png"
        Image.fromarray((digits.images[row] * 15).astype("uint8")).save(path)
        label = str(digits.target[row]) if row < LABELLED else None
        lines.append(
            ManifestLine(uri=path.as_uri(), id=f"s{row}", label=label, split="test" if row < TEST else "train")
        )
    return lines


def _project(folder: Path, images: Path, lines: list[ManifestLine], *, telemetry: bool) -> str:
    """Create a project, and return its URI."""
    store = open_store(folder.as_uri())
    metrics = MetricsSettings(way="textfile", path=f"{folder}.prom") if telemetry else MetricsSettings()
    settings = Project(
        name="digits",
        classes=tuple("0123456789"),
        budget=5,
        image=ImageSettings(size=8, channels="grey"),
        model=ModelSettings(backbone="small_cnn"),
        metrics=metrics,
        data_prefixes=(images.as_uri(),),
    )
    initialise(store, settings)
    store.create(layout.manifest("first"), b"".join(line.json_line() for line in lines))
    return store.uri


def _run_round(uri: str, run_id: str, out: Path, *, telemetry: bool) -> float:
    """Run one round, and return its CPU seconds."""

    def stage(name: str, work: Callable[[], T], key: str = "", shard: str = "") -> T:
        return run_stage(name, work, uri, key, shard, run_id if key == "" else "") if telemetry else work()

    paths = {name: str(out / name) for name in "snapshot champion model labelled evaluation features scores".split()}
    frozen, model, labelled = paths["snapshot"], paths["model"], paths["labelled"]
    queries, page = str(out / "queries"), str(out / "page.html")
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        key = stage("ingest", lambda: ingest.run(uri, Holder(run_id=run_id), force=True))
        stage("snapshot", lambda: snapshot.run(uri, key, frozen, paths["champion"]), key)
        stage("train", lambda: train.run(frozen, paths["champion"], model, labelled), key)
        measured = (frozen, paths["champion"], model, paths["evaluation"])
        stage("evaluate", lambda: evaluate.run(uri, run_id, *measured), key)
        stage("embed", lambda: embed.run("0", frozen, model, paths["features"]), key, "0")
        stage("score", lambda: score.run("0", frozen, model, labelled, paths["features"], paths["scores"]), key, "0")
        stage("select", lambda: select.run(frozen, model, labelled, [paths["scores"]], queries), key)
        stage("export", lambda: export.run(uri, key, run_id, frozen, queries, paths["evaluation"], page), key)
        stage("finish", lambda: finish.run(uri, run_id))
    return time.process_time() - start


def main() -> None:
    """Run the pairs of rounds, and print the least CPU time of each kind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="number of pairs of rounds, after one pair to warm up")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as text:
        folder, images = Path(text), Path(text) / "images"
        images.mkdir()
        lines = _write_images(images)
        uris = {
            telemetry: _project(folder / f"telemetry-{telemetry}", images, lines, telemetry=telemetry)
            for telemetry in seconds
        }
        for number in range(rounds + 1):
            for telemetry, uri in uris.items():
                out = folder / f"out-{telemetry}-{number}"
                seconds[telemetry].append(_run_round(uri, f"run-{number}", out, telemetry=telemetry))
    with_it, without = (min(seconds[telemetry][1:]) for telemetry in (True, False))
    print(f"a round with telemetry {with_it:.2f} s, without {without:.2f} s, difference {with_it - without:.2f} s")


if __name__ == "__main__":
    main()
