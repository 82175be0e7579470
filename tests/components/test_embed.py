"""The features of a frozen encoder live in the project: a round opens only the images that no round has opened."""

from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from alfamix_core.project import layout, rounds
from alfamix_core.project.initialise import initialise
from alfamix_core.records.features import read_all
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import ImageSettings, ModelSettings, Project, RoundSettings
from alfamix_core.records.snapshot import read_pool
from alfamix_core.records.stage import read_logs
from alfamix_core.storage import open_store
from components.embed import stage as embed
from components.evaluate import stage as evaluate
from components.ingest import stage as ingest
from components.snapshot import stage as snapshot
from components.train import stage as train


class Pets:
    """A project with a frozen encoder, whose rounds a test runs up to embed."""

    def __init__(self, folder):
        self.folder, self.store = folder, open_store((folder / "project").as_uri())
        settings = Project(
            name="pets",
            classes=("cat", "dog"),
            image=ImageSettings(size=8),
            model=ModelSettings(backbone="mlp", encoder="frozen"),
            round=RoundSettings(shard_size=7),
            data_prefixes=(folder.as_uri(),),
        )
        initialise(self.store, settings)

    def drop(self, name, rows, label=lambda row: None, split="train"):
        """Deliver images; ``label`` gives a row's label."""
        lines = []
        for row in rows:
            path = self.folder / f"{row}.png"
            Image.fromarray(np.random.default_rng(row).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
            lines.append(ManifestLine(uri=path.as_uri(), id=f"s{row:03d}", label=label(row), split=split))
        self.store.create(layout.manifest(name), b"".join(line.json_line() for line in lines))

    def round(self, name):
        """Run a round up to embed; return the bytes that each stage read, and the pool's features."""
        paths = {part: str(self.folder / name / part) for part in ("snapshot", "champion", "model", "labelled", "eval")}
        key = ingest.run(self.store.uri, Holder(run_id="run"), force=True)
        shards = snapshot.run(self.store.uri, key, paths["snapshot"], paths["champion"])
        train.run(paths["snapshot"], paths["champion"], paths["model"], paths["labelled"], self.store.uri)
        evaluated = evaluate.run(
            self.store.uri, "run", paths["snapshot"], paths["champion"], paths["model"], paths["eval"]
        )
        read = {}
        features = []
        for shard in shards:
            folder = self.folder / name / f"features-{shard}"
            embed.run(shard, paths["snapshot"], paths["model"], str(folder))
            features.append(read_all(folder))
            runs = read_logs([folder, self.folder / name / "eval"]).runs
            read |= {(run.stage, run.shard): run.bytes_read for run in runs if run.stage != "snapshot"}
        return read, features, evaluated, read_pool(self.folder / name / "snapshot")["sample_id"].to_pylist()

    def abandon(self):
        """Give the round up, so that the next one has the same pool."""
        rounds.unlock(self.store, datetime.now(UTC))
        rounds.abandon(self.store, "the test begins another", datetime.now(UTC))


@pytest.fixture
def pets(tmp_path):
    pets = Pets(tmp_path)
    pets.drop("labelled", range(6), lambda row: ("cat", "dog")[row % 2])
    pets.drop("test", range(6, 10), lambda row: ("cat", "dog")[row % 2], split="test")
    pets.drop("pool", range(10, 30))
    return pets


def test_an_unchanged_pool_is_not_opened_again_by_any_stage(pets):
    read, before, evaluated, pool = pets.round("one")
    assert len(pool) == 20
    assert all(read.values())
    (folder,) = pets.store.folders(layout.FEATURES)
    assert evaluated.promotion.encoder == folder, "the round names its encoder"
    pets.abandon()
    for path in pets.folder.glob("*.png"):
        path.unlink()
    read, after, _, _ = pets.round("two")
    assert set(read.values()) == {0}
    assert len(before) == len(after) == 3
    # the first round had kept nothing of its pool; no bit differs, so the queries are the same
    embeddings = before[0].keys() - {"positions"}
    assert embeddings
    for one, two in zip(before, after, strict=True):
        assert all((one[name] == two[name]).all() for name in ("positions", *embeddings))


def test_a_drop_of_n_samples_embeds_n_whatever_the_number_of_shards(pets):
    pets.round("one")
    pets.abandon()
    for path in pets.folder.glob("*.png"):
        path.unlink()
    pets.drop("more", range(30, 35))
    new = sum(path.stat().st_size for path in pets.folder.glob("*.png"))
    read, features, _, pool = pets.round("two")
    assert (len(features), len(pool)) == (4, 25)
    assert sum(read.values()) == new
    assert sum(len(rows["positions"]) for rows in features) == 25


def test_samples_that_were_withdrawn_are_not_read(pets):
    pets.round("one")
    pets.abandon()
    pets.store.create(layout.withdrawn("a"), b'{"sample_id": "s010", "time": "2026-01-01T00:00:00Z"}\n')
    _, features, _, pool = pets.round("two")
    assert "s010" not in pool
    assert sum(len(rows["positions"]) for rows in features) == len(pool) == 19
