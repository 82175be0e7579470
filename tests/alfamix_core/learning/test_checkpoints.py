"""A training that goes on from any checkpoint ends with the bits of one that was never interrupted."""

import itertools

import pytest
import torch

from alfamix_core.errors import StorageError
from alfamix_core.learning.backbones import initial
from alfamix_core.learning.checkpoints import Checkpoint, Checkpoints, digest_of
from alfamix_core.learning.distributed import ALONE
from alfamix_core.learning.training import fit
from alfamix_core.records.checkpoint import Course
from alfamix_core.records.model import PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings, TrainingSettings
from alfamix_core.telemetry.events import parse

FOLDER = "rounds/000001/run/train/"


def warned(capsys):
    """Return what warnings have said since the last call."""
    return [event["text"] for line in capsys.readouterr().out.splitlines() if (event := parse(line))]


class Dead(BaseException):
    """The process is no more."""


class Keeping:
    """Keeps every epoch's state in memory; dies after one of them where it is told to."""

    def __init__(self, dies_after: int = 0):
        self.states: list[Checkpoint] = []
        self._dies_after = dies_after

    def is_due(self) -> bool:
        return True

    def write(self, checkpoint: Checkpoint) -> None:
        copies = {name: value.clone() for name, value in checkpoint.tensors.items()}
        self.states.append(Checkpoint(copies, Course.parse(checkpoint.course.document(), "course")))
        if len(self.states) == self._dies_after:
            raise Dead


PIXELS = PixelStatistics(mean=(0.3,), std=(0.2,))
CASES = {
    "adam with augmentation and dropout": ({"augmentation": "flip_crop"}, 0.3, "mlp"),
    "sgd with cosine": ({"optimiser": "sgd", "schedule": "cosine", "learning_rate": 0.02}, 0.0, "mlp"),
    "watched, and over by patience": (
        {"stop": "val_accuracy", "patience": 2, "learning_rate": 0.02, "max_epochs": 30},
        0.2,
        "mlp",
    ),
    "batch normalisation": ({"class_weights": "balanced", "optimiser": "adamw"}, 0.0, "small_cnn"),
}


@pytest.mark.parametrize("case", CASES)
def test_going_on_after_any_epoch_gives_the_bits_of_the_undisturbed_training(digits, case):
    changes, dropout, backbone = CASES[case]
    settings = TrainingSettings(**({"max_epochs": 5, "stop": "never", "batch_size": 16} | changes))

    def trained(keeper=None, begin=None):
        model = initial(
            ModelSettings(backbone=backbone, dropout=dropout), ImageSettings(size=8, channels="grey"), 10, 0
        )
        if begin is None:
            # a training that resumes has those of its checkpoint
            model.pixels = PIXELS
        result = fit(
            model,
            digits.examples(range(60)),
            settings,
            seed=5,
            device=torch.device("cpu"),
            val=digits.examples(range(1000, 1060)),
            keeper=keeper,
            begin=begin,
        )
        return result, model.state_dict()

    result, weights = trained()
    keeping = Keeping()
    watched, same = trained(keeping)
    assert watched == result
    assert len(keeping.states) == result.epochs
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    for state in keeping.states[:: max(1, len(keeping.states) // 4)] + keeping.states[-1:]:
        torch.rand(7)
        assert state.course.pixels == PIXELS
        again, others = trained(begin=state)
        assert again == result
        assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_a_training_that_dies_keeps_what_it_had_found_unreadable(digits):
    images = digits.examples(range(20))
    images.images.mark_unreadable({3: "no image"})
    keeping = Keeping(dies_after=1)
    model = initial(ModelSettings(backbone="mlp"), ImageSettings(size=8, channels="grey"), 10, 0)
    told = {"seed": 0, "device": torch.device("cpu")}
    with pytest.raises(Dead):
        fit(model, images, TrainingSettings(max_epochs=2, stop="never"), keeper=keeping, **told)
    fresh = digits.examples(range(20))
    model = initial(ModelSettings(backbone="mlp"), ImageSettings(size=8, channels="grey"), 10, 0)
    fit(model, fresh, TrainingSettings(max_epochs=2, stop="never"), begin=keeping.states[0], **told)
    assert [(bad.sample_id, bad.reason) for bad in fresh.images.quarantined()] == [("0003", "no image")]


def checkpoint(epochs: int) -> Checkpoint:
    losses = tuple(1 / (epoch + 3) for epoch in range(epochs))
    return Checkpoint(
        {"model.a": torch.arange(4.0) + epochs}, Course(pixels=PIXELS, losses=losses, accuracies=losses, steps=epochs)
    )


def files(store):
    return [entry.key.removeprefix(FOLDER) for entry in store.list(FOLDER)]


def test_the_last_checkpoint_alone_is_kept_and_found_again_by_the_same_training(store, tmp_path, capsys):
    kept = Checkpoints(store, FOLDER, "mine", 0, tmp_path)
    assert kept.find(ALONE) is None
    for epochs in (1, 2, 3):
        assert kept.is_due()
        kept.write(checkpoint(epochs))
        assert len(files(store)) == 2
    found = Checkpoints(store, FOLDER, "mine", 0, tmp_path).find(ALONE)
    assert found.course == checkpoint(3).course
    assert torch.equal(found.tensors["model.a"], torch.arange(4.0) + 3)
    assert warned(capsys) == []
    assert Checkpoints(store, FOLDER, "another", 0, tmp_path).find(ALONE) is None
    assert warned(capsys) == [f"{store.uri_of(FOLDER + 'checkpoint.json')} belongs to another training and is not used"]


def test_a_write_that_dies_at_any_request_leaves_the_checkpoint_before_it_or_the_new_one(store, tmp_path):
    """Each of the store's calls in turn is the last; nothing that is left stands in the way of the next attempt."""
    for deadly in itertools.count(1):
        for entry in list(store.list(FOLDER)):
            store.delete(entry.key)
        Checkpoints(store, FOLDER, "mine", 0, tmp_path).write(checkpoint(1))
        dying = Checkpoints(Dying(store, deadly), FOLDER, "mine", 0, tmp_path)
        try:
            dying.write(checkpoint(2))
        except Dead:
            died = True
        else:
            died = False
        next_attempt = Checkpoints(store, FOLDER, "mine", 0, tmp_path)
        assert next_attempt.find(ALONE).course.epochs in (1, 2)
        next_attempt.write(checkpoint(3))
        assert len(files(store)) == 2
        assert next_attempt.find(ALONE).course.epochs == 3
        if not died:
            break
    assert deadly > 4


class Dying:
    """A store whose user dies after so many calls."""

    def __init__(self, store, calls):
        self._store = store
        self._calls = calls

    def __getattr__(self, name):
        def call(*arguments):
            answer = getattr(self._store, name)(*arguments)
            self._calls -= 1
            if not self._calls:
                raise Dead
            return answer

        return call


@pytest.mark.parametrize("harm", ["gone", "cut", "other bytes", "no JSON", "no fields"])
def test_a_damaged_checkpoint_is_named_and_the_training_begins_anew(store, tmp_path, capsys, harm):
    kept = Checkpoints(store, FOLDER, "mine", 0, tmp_path)
    kept.write(checkpoint(1))
    (data,) = [name for name in files(store) if name.endswith(".safetensors")]
    commit = store.read(FOLDER + "checkpoint.json")
    if harm in ("no JSON", "no fields"):
        store.swap(FOLDER + "checkpoint.json", b"{" if harm == "no JSON" else b"{}", commit.tag)
    else:
        whole = store.read(FOLDER + data).data
        store.delete(FOLDER + data)
        if harm != "gone":
            store.create(FOLDER + data, whole[:-2] if harm == "cut" else whole[:-2] + b"ab")
    assert kept.find(ALONE) is None
    (said,) = warned(capsys)
    assert said.startswith("the training starts from scratch, because its checkpoint cannot be read: ")
    kept.write(checkpoint(2))
    assert kept.find(ALONE).course.epochs == 2
    assert len(files(store)) == 2


class Down:
    """A store that does not answer."""

    def __getattr__(self, name):
        def call(*_):
            raise StorageError("the store is down")

        return call


def test_a_store_that_is_down_is_a_warning(tmp_path, capsys):
    kept = Checkpoints(Down(), FOLDER, "mine", 0, tmp_path)
    assert kept.find(ALONE) is None
    kept.write(checkpoint(4))
    assert warned(capsys) == [
        "the training starts from scratch, because its checkpoint cannot be read: the store is down",
        "the checkpoint of epoch 4 could not be written: the store is down",
    ]
    assert list(tmp_path.iterdir()) == []


def test_writing_takes_a_twentieth_of_the_time_at_most(store, tmp_path, monkeypatch):
    """A write of 3 s makes the next one wait 57 s; a write of 0.1 s leaves the 10 s that are set."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    kept = Checkpoints(store, FOLDER, "mine", 10, tmp_path)
    written = Checkpoints._write
    for seconds, wait in ((0.1, 10), (3, 57)):
        monkeypatch.setattr(Checkpoints, "_write", lambda self, state, s=seconds: (written(self, state), add(now, s)))
        now[0] += 10.01
        assert kept.is_due()
        kept.write(checkpoint(1))
        now[0] += wait - 0.01
        assert not kept.is_due()
        now[0] += 0.02
        assert kept.is_due()


def add(now, seconds):
    now[0] += seconds


def test_digests_tell_where_parts_end():
    assert digest_of(b"ab", b"c") != digest_of(b"a", b"bc")
    assert digest_of(b"ab") == digest_of(b"ab")
