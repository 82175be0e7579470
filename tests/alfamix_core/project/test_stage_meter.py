"""What a meter writes about one run of a stage."""

import pickle
from dataclasses import dataclass

import pytest
import torch

from alfamix_core.project.stage_meter import StageMeter
from alfamix_core.records.stage import Quarantined, read_logs


@dataclass
class Read:
    """Samples of which some could not be read."""

    bytes_read: int
    bad: tuple[str, ...] = ()

    def quarantined(self) -> tuple[Quarantined, ...]:
        return tuple(Quarantined(sample_id=name, uri=f"{name}.png", reason="empty") for name in self.bad)


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / name for name in ("model", "features")]
    for folder in made:
        folder.mkdir()
    return made


def test_every_output_gets_the_log_with_those_of_the_inputs_before_it(folders):
    model, features = folders
    with StageMeter("train", outputs=[model]) as meter:
        meter.rows = 3
        meter.add(Read(100, ("a",)))
    with StageMeter("embed", "1", consumed=[model], outputs=[features], device=torch.device("cpu")) as meter:
        meter.rows = 7
        meter.add(Read(40, ("b",)), Read(2, ("a",)))
    log = read_logs([features])
    assert [(run.stage, run.shard, run.rows, run.bytes_read, run.device) for run in log.runs] == [
        ("train", "", 3, 100, ""),
        ("embed", "1", 7, 42, "cpu"),
    ]
    assert [sample.sample_id for sample in log.quarantined] == ["a", "b"]
    assert all(run.peak_memory_bytes > 0 and run.gpu_seconds == 0 for run in log.runs)


def test_a_stage_that_fails_leaves_no_log(folders):
    with pytest.raises(ZeroDivisionError), StageMeter("train", outputs=folders):
        raise ZeroDivisionError
    assert not any(list(folder.iterdir()) for folder in folders)


def test_another_process_may_finish_the_run(folders):
    meter = pickle.loads(pickle.dumps(StageMeter("train", outputs=folders)))
    with meter:
        meter.rows = 5
    assert [run.rows for run in read_logs(folders).runs] == [5]
