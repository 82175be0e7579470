"""snapshot writes down the frozen world, whatever has happened since."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout, lock, models, rounds
from alfamix_core.records import snapshot
from alfamix_core.records.champion import Champion
from alfamix_core.records.stage import read_logs
from components.snapshot import stage


@pytest.fixture
def run(birds, tmp_path):
    """Run ingest and then the stage; return the shards, the snapshot's folder and the champion's."""

    def run(name="out", key=None):
        folder, serving = tmp_path / name / "snapshot", tmp_path / name / "champion"
        shards = stage.run(birds.uri, key or birds.ingest("run-1"), str(folder), str(serving))
        return shards, folder, serving

    return run


def answers(birds, **labels):
    lines = [
        json.dumps(
            {
                "event_id": key,
                "sample_id": key,
                "kind": "label",
                "label": label,
                "annotator": "ann",
                "round": 3,
                "time": "2026-03-01T12:00:00Z",
            }
        )
        for key, label in labels.items()
    ]
    birds.store.create("labels/1.jsonl", "\n".join(lines).encode())


def test_pool_and_labels_are_tables_in_order_of_sample_id(birds, run):
    birds.drop("z", "e", "a", group="camera 1")
    birds.drop("b", "c", "d")
    birds.drop("t", "f", label="dog", split="test")
    answers(birds, e="cat", c="dog")
    shards, folder, serving = run()
    uri = birds.store.uri_of
    assert shards == ["0"]
    assert snapshot.read_pool(folder).to_pylist() == [
        {"sample_id": "a", "uri": uri("drops/z/a.png"), "group": "camera 1", "on_map": True, "new": True},
        {"sample_id": "d", "uri": uri("drops/b/d.png"), "group": None, "on_map": True, "new": True},
    ]
    assert [tuple(row.values()) for row in snapshot.read_labelled(folder).to_pylist()] == [
        ("c", uri("drops/b/c.png"), 1, "train", None, 3),
        ("e", uri("drops/z/e.png"), 0, "train", "camera 1", 3),
        ("f", uri("drops/t/f.png"), 1, "test", None, 0),
    ]
    record = rounds.read(birds.store, 1)[0]
    assert snapshot.read_round(folder) == record.model_copy(update={"run_id": ""})
    (log,) = read_logs([folder]).runs
    assert (log.stage, log.rows) == ("snapshot", 5)
    assert [path.name for path in serving.iterdir()] == ["champion.json"]


def test_a_resumed_round_has_the_same_snapshot_byte_for_byte_whatever_was_delivered_meanwhile(birds, run):
    birds.drop("a", "x", "y")
    answers(birds, x="cat")
    _, before, _ = run("before")
    birds.drop("new", "z")
    birds.store.create("labels/2.jsonl", birds.store.read("labels/1.jsonl").data.replace(b'"x"', b'"y"'))
    birds.expire_lock()
    _, after, _ = run("after", birds.ingest("run-2"))
    for name in (snapshot.ROUND_FILE, snapshot.POOL_FILE, snapshot.LABELLED_FILE):
        assert (before / name).read_bytes() == (after / name).read_bytes()


@pytest.mark.parametrize("act", ["changed", "appended to", "deleted"])
def test_a_round_does_not_depend_on_files_that_others_may_change(birds, run, act):
    birds.drop("a", "x", "y")
    key = birds.ingest("run-1")
    _, before, _ = run("before", key=key)
    stored = birds.store.read("drops/a/manifest.jsonl")
    if act == "deleted":
        birds.store.delete("drops/a/manifest.jsonl")
    else:
        more = {"changed": stored.data.replace(b"y", b"z"), "appended to": stored.data * 2 + b"{"}[act]
        birds.store.swap("drops/a/manifest.jsonl", more, stored.tag)
    _, after, _ = run("after", key=key)
    assert (before / snapshot.POOL_FILE).read_bytes() == (after / snapshot.POOL_FILE).read_bytes()


def test_an_empty_pool_is_one_empty_shard(birds, run):
    birds.drop("a", "x", label="cat")
    shards, folder, _ = run()
    assert shards == ["0"]
    assert snapshot.read_pool(folder).num_rows == 0


def test_there_are_as_many_shards_as_the_round_says(birds, run):
    stored = birds.store.read(layout.PROJECT)
    birds.store.swap(layout.PROJECT, stored.data.replace(b'"shard_size": 50000', b'"shard_size": 2'), stored.tag)
    birds.drop("a", *"vwxyz")
    assert run()[0] == ["0", "1", "2"]


def test_the_map_shows_the_2000_samples_with_the_smallest_hashes(birds, run):
    ids = [f"s{number}" for number in range(2_100)]
    birds.drop("a", *ids)
    _, folder, _ = run()
    shown = {row["sample_id"] for row in snapshot.read_pool(folder).to_pylist() if row["on_map"]}
    assert shown == set(sorted(ids, key=lambda key: hashlib.sha256(key.encode()).digest())[:2_000])


def test_the_champion_that_was_frozen_is_handed_out_with_its_model_and_a_changed_one_is_refused(birds, run, tmp_path):
    birds.drop("a", "x", "y")
    (tmp_path / "model.json").write_bytes(b"card")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = models.upload(birds.store, tmp_path)
    birds.ingest("run-1")
    lock.release(birds.store, "run-1")
    rounds.abandon(birds.store, "no matter", datetime.now(UTC))
    serving = Champion(revision=1, round=1, model=digest, metrics={"accuracy": 0.5})
    birds.store.create(layout.CHAMPION, serving.document())
    key = birds.ingest("run-1", force=True)
    _, _, folder = run(key=key)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "champion.json": serving.document(),
        "model.json": b"card",
        "model.safetensors": b"weights",
    }
    birds.store.delete(layout.model(digest) + "model.safetensors")
    birds.store.create(layout.model(digest) + "model.safetensors", b"other")
    with pytest.raises(InputError, match=rf"^models/{digest}/ was changed: its bytes are not those of its digest"):
        run("again", key)
