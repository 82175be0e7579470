"""Two real processes under torch's launcher train as one does; the death of one is one clear failure."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alfamix_core.errors import InputError, StorageError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.batches import SampleImages
from alfamix_core.learning.distributed import ALONE, PROCESSES, Team, launch, processes
from alfamix_core.learning.pixels import of_images
from alfamix_core.learning.training import Examples, fit
from alfamix_core.records.project import ImageSettings, ModelSettings, TrainingSettings
from tests.alfamix_core.learning.conftest import FileReader

IMAGE = ImageSettings(size=8, channels="grey")


def examples_of(uris, labels) -> Examples:
    images = SampleImages(
        FileReader(), [str(row) for row in range(len(uris))], uris, IMAGE, max_pixels=100, cache_bytes=2**20
    )
    return Examples(images, torch.tensor(labels))


def train_cases(team: Team, folder: str, cases: dict) -> None:
    """Train once a case and write what came of it, rank by rank."""
    for name, case in cases.items():
        model = initial(ModelSettings(backbone=case["backbone"]), IMAGE, 10, 0)
        train = examples_of(case["uris"], case["labels"])
        model.pixels = of_images(train.images, team)
        result = fit(
            model,
            train,
            TrainingSettings(**case["settings"]),
            seed=3,
            device=torch.device("cpu"),
            val=examples_of(case["val_uris"], case["val_labels"]),
            team=team,
        )
        path = Path(folder, f"{name}-{team.size}-{team.rank}")
        save_file(model.state_dict(), path.with_suffix(".safetensors"))
        said = {
            "losses": result.losses,
            "accuracies": result.accuracies,
            "val": result.val_accuracies,
            "why": result.stopped_because,
            "pixels": model.pixels.model_dump(mode="json"),
            "bad": [bad.sample_id for bad in train.images.quarantined()],
        }
        path.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")


@pytest.fixture(scope="module")
def outcome(digits, tmp_path_factory):
    """All cases by one process and by two, in one launch: what came of a case, for a size and a rank."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "bad.png").write_text("no image")

    def case(rows, backbone="mlp", bad=(), **settings):
        uris = [str(folder / "bad.png") if row in bad else digits.uris[row] for row in range(rows)]
        return {
            "backbone": backbone,
            "uris": uris,
            "labels": digits.labels_n[:rows].tolist(),
            "val_uris": digits.uris[1000:1101],
            "val_labels": digits.labels_n[1000:1101].tolist(),
            "settings": {"max_epochs": 4, "stop": "never", "batch_size": 32} | settings,
        }

    cases = {
        "uneven": case(32 * 3 + 5),
        "lone": case(32 * 3 + 1, class_weights="balanced"),
        "weights": case(101, class_weights="balanced", optimiser="sgd", learning_rate=0.05, schedule="cosine"),
        "unreadable": case(70, bad={0, 1, 2, 40, 69}),
        "watched": case(101, stop="val_accuracy", patience=2, max_epochs=12, learning_rate=0.01),
        "cnn": case(65, "small_cnn"),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))  # as many as each of two has, for the sake of the bits
    train_cases(ALONE, str(folder), cases)
    torch.set_num_threads(threads)
    launch(2, train_cases, str(folder), cases)

    def read(name, size, rank=0):
        path = folder / f"{name}-{size}-{rank}"
        return json.loads(path.with_suffix(".json").read_text()), load_file(path.with_suffix(".safetensors"))

    return read


@pytest.mark.parametrize("name", ["uneven", "lone", "weights", "unreadable", "watched"])
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(outcome, name):
    """The last batch of ``uneven`` has 2 and 3 rows, that of ``lone`` 0 and 1; float32 sums in another order."""
    (one, weights), (two, others) = outcome(name, 1), outcome(name, 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert two["accuracies"] == pytest.approx(one["accuracies"], abs=0.011)
    assert two["val"] == pytest.approx(one["val"], abs=0.01)
    assert (two["why"], two["bad"], two["pixels"]) == (one["why"], one["bad"], one["pixels"])
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["uneven", "unreadable", "watched", "cnn"])
def test_all_processes_end_with_the_same_bits(outcome, name):
    (first, weights), (second, others) = outcome(name, 2, 0), outcome(name, 2, 1)
    assert first == second
    assert all(torch.equal(value, others[key]) for key, value in weights.items())


def test_batch_normalisation_is_settled_on_the_samples_of_all_processes(outcome):
    """Its training differs on the CPU, by process; the loss still falls alike, and no statistic is left undone."""
    (one, _), (two, weights) = outcome("cnn", 1), outcome("cnn", 2)
    assert two["losses"][-1] == pytest.approx(one["losses"][-1], rel=0.3)
    tracked = [value.item() for key, value in weights.items() if key.endswith("num_batches_tracked")]
    assert all(batches == 2 for batches in tracked), "65 rows by 32, the lone one left out"
    assert all(value.isfinite().all() for value in weights.values())


def test_parts_and_batches_of_a_team_are_the_whole():
    for rows in (0, 1, 5, 64, 65):
        rows_n = torch.randperm(rows)
        for size in (1, 2, 3, 8):
            parts = [Team(rank, size).own_part(rows_n) for rank in range(size)]
            assert torch.equal(torch.cat(parts), rows_n)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
            pieces = [piece for rank in range(size) for piece in Team(rank, size).own_batches(rows_n, 4).split(4)]
            assert sorted(torch.cat(pieces).tolist()) == sorted(rows_n.tolist())
            whole = {tuple(piece.tolist()) for piece in rows_n.split(4)} - {()}
            assert {tuple(piece.tolist()) for piece in pieces} - {()} == whole


def fail_in(team: Team, how: str) -> None:
    """Rank 1 fails while rank 0 waits for it."""
    if team.rank == 1:
        if how == "input":
            raise InputError("field\nwrong")
        if how == "storage":
            raise StorageError("the store is down")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("a bug")
    team.total(torch.zeros(1))


@pytest.mark.parametrize(
    ("how", "kind", "line"),
    [
        ("input", InputError, "^field wrong$"),
        ("storage", StorageError, "^the store is down$"),
        ("killed", RuntimeError, r"^process 1 of the 2 that train was killed \(SIGKILL\): out of memory\?$"),
        ("bug", RuntimeError, "^process 1 of the 2 that train stopped: ZeroDivisionError: a bug$"),
    ],
)
def test_the_failure_of_one_process_is_one_failure_and_no_hang(how, kind, line):
    start = time.monotonic()
    with pytest.raises(kind, match=line):
        launch(2, fail_in, how)
    assert time.monotonic() - start < 90


def exchange(team: Team, folder: str) -> None:
    text = team.texts("ä" * (team.rank + 1))
    said = [text, team.agrees(team.rank == 0), team.agrees(team.rank == 1), team.total(torch.tensor(3)).item()]
    Path(folder, str(team.rank)).write_text(json.dumps(said), encoding="utf-8")


def test_a_team_exchanges_texts_decisions_and_sums(tmp_path):
    launch(2, exchange, str(tmp_path))
    for rank in "01":
        assert json.loads((tmp_path / rank).read_text(encoding="utf-8")) == [["ä", "ää"], True, False, 6]
    assert ALONE.texts("") == [""]


def test_the_number_of_processes_can_be_set(monkeypatch):
    monkeypatch.delenv(PROCESSES, raising=False)
    assert processes() == max(1, torch.cuda.device_count())
    monkeypatch.setenv(PROCESSES, "1")
    assert processes() == 1
    for wrong in ("0", "two", "1000"):
        monkeypatch.setenv(PROCESSES, wrong)
        with pytest.raises(InputError, match=f"^{PROCESSES} must be a number of processes, 1 to .* not {wrong}$"):
            processes()
