"""What Argo makes of the compiled pipeline: what it repeats, for how long, and what runs after the deadline."""

from pathlib import Path

import pytest
import yaml

from components import images
from pipelines.compile import GOLDEN
from tests.pipelines.argo import FAILED, KUBEFLOW_DEFAULT, LOST, Strategy, is_exit_task, strategy, time_limit
from tests.pipelines.test_platform import compiled, tasks

HOUR = 3600


@pytest.fixture(scope="module")
def golden():
    spec, platform = yaml.safe_load_all(GOLDEN.read_text("utf-8"))
    return tasks(spec), platform["platforms"]["kubernetes"]


@pytest.mark.parametrize("stage", images.COMPONENTS)
def test_a_lost_pod_is_replaced_twice_and_a_stage_that_failed_is_not_repeated_by_argo(golden, stage: str):
    """Kubeflow's own default says OnError, and what set_retry compiles leaves it in force."""
    found = strategy(golden[0][stage], KUBEFLOW_DEFAULT)
    assert found == Strategy(limit=2, policy="OnError", duration=30, factor="2", window=24 * HOUR)
    assert [found.next_wait(LOST, attempts, 0) for attempts in (1, 2, 3)] == [30, 60, None]
    assert [found.next_wait(FAILED, attempts, 0) for attempts in (1, 2)] == [None, None]


def test_without_kubeflows_default_failures_are_repeated_and_lost_pods_are_not(golden):
    """An Argo that another team set up: its own default is OnFailure. An administrator may say Always."""
    other = strategy(golden[0]["train"], {})
    assert (other.next_wait(FAILED, 1, 0), other.next_wait(LOST, 1, 0)) == (30, None)
    always = strategy(golden[0]["train"], {**KUBEFLOW_DEFAULT, "retryPolicy": "Always"})
    assert (always.next_wait(FAILED, 1, 0), always.next_wait(LOST, 1, 0)) == (30, 30)


def test_hours_in_the_queue_for_a_gpu_do_not_use_the_retries_up(golden):
    """The window begins when the first pod is created. 12 h of waiting and 11 h of training: lost, and begun again."""
    found = strategy(golden[0]["train"], KUBEFLOW_DEFAULT)
    assert found.next_wait(LOST, 1, 23 * HOUR) == 30
    assert found.next_wait(LOST, 1, 24 * HOUR) is None


def test_a_fractional_factor_would_end_every_retry_with_an_error():
    broken = Strategy(limit=2, policy="OnError", duration=30, factor="1.5", window=HOUR)
    with pytest.raises(ValueError, match=r"1\.5"):
        broken.next_wait(LOST, 1, 0)


def test_every_factor_that_the_settings_take_is_one_that_argo_reads(tmp_path: Path):
    for factor in (1, 10):
        spec, _ = compiled(tmp_path, f"[retry]\nbackoff_factor = {factor}")
        found = strategy(tasks(spec)["embed"], KUBEFLOW_DEFAULT)
        assert found.next_wait(LOST, 2, 0) == 30 * factor


def test_a_task_without_retries_has_those_of_the_default(tmp_path: Path):
    spec, _ = compiled(tmp_path, "[stages.score]\nretries = 0")
    assert strategy(tasks(spec)["score"], KUBEFLOW_DEFAULT) == Strategy(limit=2, policy="OnError")


def test_finish_has_its_own_time_after_the_deadline_of_the_whole_run(golden):
    """Argo exempts the pods of exit handlers from the workflow's deadline."""
    found, kubernetes = golden
    deadline = kubernetes["pipelineConfig"]["activeDeadlineSeconds"]
    own = {name: int(pod["activeDeadlineSeconds"]) for name, pod in kubernetes["deploymentSpec"]["executors"].items()}
    assert [stage for stage in images.COMPONENTS if is_exit_task(found[stage])] == ["finish"]
    assert time_limit(found["finish"], own["exec-finish"], deadline, deadline + 60) == own["exec-finish"] == HOUR / 2
    for stage in images.COMPONENTS[:-1]:
        assert time_limit(found[stage], own[f"exec-{stage}"], deadline, deadline + 60) == 0
