"""What Argo makes of the compiled pipeline: what it repeats, for how long, and what runs after the deadline."""

from pathlib import Path

import pytest
import yaml

from components import images
from pipelines.compile import GOLDEN
from tests.pipelines import argo
from tests.pipelines.argo import (
    GONE,
    KUBEFLOW_DEFAULT,
    KUBEFLOW_PATTERN,
    Strategy,
    is_exit_task,
    strategy,
    time_limit,
)
from tests.pipelines.test_platform import compiled, tasks

HOUR = 3600
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def golden():
    spec, platform = yaml.safe_load_all(GOLDEN.read_text("utf-8"))
    return tasks(spec), platform["platforms"]["kubernetes"]


@pytest.mark.parametrize("stage", images.COMPONENTS)
def test_the_innermost_template_replaces_a_pod_that_is_gone_twice(golden, stage: str):
    """Kubeflow's own default says OnError, and what set_retry compiles leaves it in force."""
    compiled = strategy(golden[0][stage], KUBEFLOW_DEFAULT)
    assert compiled == Strategy(limit=2, policy="OnError", duration=30, factor="2", window=24 * HOUR)
    assert [compiled.next_wait(GONE, attempts, 0) for attempts in (1, 2, 3)] == [30, 60, None]


LEVELS = {
    **dict.fromkeys(("snapshot", "train", "evaluate", "select", "export"), 6),
    **dict.fromkeys(("embed", "score"), 9),
    "ingest": 5,
    "finish": 3,
}


@pytest.fixture(scope="module")
def spec():
    return next(yaml.safe_load_all(GOLDEN.read_text("utf-8")))


@pytest.mark.parametrize("stage", images.COMPONENTS)
def test_every_dag_around_a_lost_pod_repeats_it(spec, stage: str):
    """The default is merged into the templates of DAGs too, and each passes its child's Error on."""
    assert argo.pods(spec, stage, KUBEFLOW_DEFAULT, lambda _: GONE) == 3 ** LEVELS[stage]
    assert argo.pods(spec, stage, KUBEFLOW_DEFAULT, lambda _: argo.WRONG_INPUT) == 1
    assert argo.pods(spec, stage, {}, lambda _: GONE) == 1


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_stage_that_counts_its_starts_ends_the_repeats(tmp_path: Path, retries: int):
    """After (1 + retries) ** 2 starts the next pod ends with an exit status: Failed, which OnError does not repeat."""
    spec, _ = compiled(tmp_path, f"[stages.train]\nretries = {retries}")
    allowed = (1 + retries) ** 2
    pods = argo.pods(spec, "train", KUBEFLOW_DEFAULT, lambda n: GONE if n < allowed else argo.WRONG_INPUT)
    assert pods == allowed + 1
    assert argo.pods(spec, "train", KUBEFLOW_DEFAULT, lambda _: GONE) == (1 + retries) * 3**5


def test_the_page_names_the_number_of_pods(spec):
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    for stage in images.COMPONENTS:
        assert f"| {3 ** LEVELS[stage]:,} |" in page


POLICIES = ("OnError", "OnTransientError", "OnFailure", "Always")
REPEATED = {
    "GONE": (argo.GONE, "yes yes no yes"),
    "NOT_PREPARED": (argo.NOT_PREPARED, "yes no no yes"),
    "NOT_FINISHED": (argo.NOT_FINISHED, "yes no no yes"),
    "SHUT_DOWN": (argo.SHUT_DOWN, "no yes yes yes"),
    "PREEMPTED_BY_THE_KUBELET": (argo.PREEMPTED_BY_THE_KUBELET, "no yes yes yes"),
    "EVICTED": (argo.EVICTED, "no no yes yes"),
    "DISK_EXCEEDED": (argo.DISK_EXCEEDED, "no no yes yes"),
    "DELETED_BUT_SEEN": (argo.DELETED_BUT_SEEN, "no no yes yes"),
    "OUT_OF_MEMORY": (argo.OUT_OF_MEMORY, "no no yes yes"),
    "LATE": (argo.LATE, "no no yes yes"),
    "WRONG_INPUT": (argo.WRONG_INPUT, "no no yes yes"),
}


@pytest.mark.parametrize("ending", REPEATED)
def test_what_argo_repeats_depends_on_the_policy_of_the_cluster(golden, ending: str):
    """The table in docs/operations.md: only the first column is what Kubeflow ships."""
    pod, expected = REPEATED[ending]
    for policy, answer in zip(POLICIES, expected.split(), strict=True):
        compiled = strategy(golden[0]["train"], {**KUBEFLOW_DEFAULT, "retryPolicy": policy})
        assert compiled.next_wait(pod, 1, 0) == (30 if answer == "yes" else None), policy


def test_the_table_of_the_page_is_that_of_the_rules():
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line]
    ((_, *policies),) = [row for row in rows if row[0] == "how the pod ended"]
    assert tuple(policies[: len(POLICIES)]) == POLICIES
    begin = [row[0] for row in rows].index("how the pod ended") + 2
    answers = [" ".join(row[1:]) for row in rows[begin : begin + len(REPEATED)]]
    assert answers == [expected for _, expected in REPEATED.values()]


def test_a_pattern_for_low_resources_lets_evictions_be_repeated(golden):
    """The kubelet's message names the resource and not the eviction, so that Kubeflow's pattern misses it."""
    pattern = f"{KUBEFLOW_PATTERN}|low on resource"
    compiled = strategy(golden[0]["train"], {**KUBEFLOW_DEFAULT, "retryPolicy": "OnTransientError"})
    assert [compiled.next_wait(argo.EVICTED, 1, 0, known) for known in (KUBEFLOW_PATTERN, pattern)] == [None, 30]


def test_without_kubeflows_default_failures_are_repeated_and_pods_that_are_gone_are_not(golden):
    """An Argo that another team set up: its own default is OnFailure."""
    other = strategy(golden[0]["train"], {})
    assert (other.next_wait(argo.WRONG_INPUT, 1, 0), other.next_wait(GONE, 1, 0)) == (30, None)


def test_hours_in_the_queue_for_a_gpu_do_not_use_the_retries_up(golden):
    """The window begins when the first pod is created. 12 h of waiting and 11 h of training: lost, and begun again."""
    found = strategy(golden[0]["train"], KUBEFLOW_DEFAULT)
    assert found.next_wait(GONE, 1, 23 * HOUR) == 30
    assert found.next_wait(GONE, 1, 24 * HOUR) is None


def test_a_fractional_factor_would_end_every_retry_with_an_error():
    broken = Strategy(limit=2, policy="OnError", duration=30, factor="1.5", window=HOUR)
    with pytest.raises(ValueError, match=r"1\.5"):
        broken.next_wait(GONE, 1, 0)


def test_every_factor_that_the_settings_take_is_one_that_argo_reads(tmp_path: Path):
    for factor in (1, 10):
        spec, _ = compiled(tmp_path, f"[retry]\nbackoff_factor = {factor}")
        found = strategy(tasks(spec)["embed"], KUBEFLOW_DEFAULT)
        assert found.next_wait(GONE, 2, 0) == 30 * factor


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stage_with_0_retries_has_none_whatever_the_default_says(tmp_path: Path, policy: str):
    """Without a limit of its own a task would get that of Kubeflow's default, 2."""
    spec, _ = compiled(tmp_path, "[stages.score]\nretries = 0")
    alone = strategy(tasks(spec)["score"], {**KUBEFLOW_DEFAULT, "retryPolicy": policy})
    assert alone.limit == 0
    assert [alone.next_wait(pod, 1, 0) for pod, _ in REPEATED.values()] == [None] * len(REPEATED)


@pytest.mark.parametrize("terminated", [False, True])
def test_finish_has_its_own_time_after_the_deadline_and_after_a_person_terminated_the_run(golden, terminated: bool):
    """Argo exempts the pods of exit handlers from the deadline, and Kubeflow terminates a run by setting it to 0."""
    compiled_tasks, kubernetes = golden
    deadline = 0 if terminated else kubernetes["pipelineConfig"]["activeDeadlineSeconds"]
    own = {name: int(pod["activeDeadlineSeconds"]) for name, pod in kubernetes["deploymentSpec"]["executors"].items()}
    assert [stage for stage in images.COMPONENTS if is_exit_task(compiled_tasks[stage])] == ["finish"]
    left = time_limit(compiled_tasks["finish"], own["exec-finish"], deadline, deadline + 60)
    assert left == own["exec-finish"] == HOUR / 2
    for stage in images.COMPONENTS[:-1]:
        assert time_limit(compiled_tasks[stage], own[f"exec-{stage}"], deadline, deadline + 60) == 0
