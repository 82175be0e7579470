"""Where a task runs: the only place that knows Kubernetes. Locally it says whether a task's output is reused, no more.

What kfp-kubernetes 2.17 cannot say: a read-only root (our images work with one; an admission policy may demand it by
the label app.kubernetes.io/name), requests for the node's disk (a LimitRange can, see deploy/disk), the priority of a
pod, and a label whose value is a parameter of the pipeline, such as the project. Capabilities, escalation and seccomp
need no word: the backend drops them all for every task. An empty Secret or a missing one leaves the pod its own
identity.

The launcher of Kubeflow runs in the same container and reads the variables AWS_*, so that the store of projects has
variables of our own, see ``alfamix_core.storage.access``.
"""

import math
import re

from kfp import dsl, kubernetes

from alfamix_core.project import patience
from alfamix_core.storage import access
from components import images
from pipelines.platform_settings import PLATFORM, PlatformSettings

PREFIX = "app.kubernetes.io/"
CA_FOLDER = "/etc/alfamix-ca"


def configure(task: dsl.PipelineTask, settings: PlatformSettings | None, *, cached: bool) -> dsl.PipelineTask:
    """Return the task with its settings for the platform.

    Args:
        task: a step of the round, made of a component whose name is the stage's.
        settings: of a cluster; None locally.
        cached: whether an earlier output of the same step on the same inputs may stand in for it; never for a step
            that touches the project.
    """
    task.set_caching_options(cached)
    if settings is not None:
        stage = str(task.component_spec.name)
        task.set_container_image(settings.image(stage))
        _size(task, settings, stage)
        _limit(task, settings, stage)
        _mount(task, settings, stage)
        _identify(task, settings, stage)
    return task


def whole_run(settings: PlatformSettings | None) -> dsl.PipelineConfig:
    """Return what holds for the run as a whole."""
    return dsl.PipelineConfig(active_deadline_seconds=None if settings is None else settings.run_seconds)


def shards_at_once(settings: PlatformSettings | None) -> int | None:
    """Return how many shards are worked on at a time; None locally, where the runner decides."""
    return None if settings is None else settings.shards_at_once


def _size(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Say what the pod needs, and on which nodes it may run."""
    resources = settings.resources_of(stage)
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    if resources.gpus:
        task.set_accelerator_type(settings.accelerator).set_accelerator_limit(resources.gpus)
    for key, value in sorted(resources.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for each in resources.tolerations:
        kubernetes.add_toleration(
            task, key=each.key, operator=each.operator, value=each.value or None, effect=each.effect
        )


def _limit(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Set the time limit of a pod, how often the stage may try again inside it, and how often Argo may replace it.

    The compiled retry strategy has a limit and waits, but no policy, because the SDK has no word for one: which pods
    Argo replaces is the cluster's decision, see docs/operations.md. It is compiled for 0 retries too, because a task
    without a strategy gets that of the cluster's default.
    """
    limits, retry = settings.stage(stage), settings.retry
    seconds = math.ceil(limits.hours * 3600)
    kubernetes.set_timeout(task, seconds)
    task.set_retry(
        limits.retries,
        backoff_duration=f"{retry.backoff_seconds}s",
        backoff_factor=retry.backoff_factor,
        backoff_max_duration=f"{settings.run_seconds}s",
    )
    for name, value in (
        (patience.RETRIES, limits.retries),
        (patience.BACKOFF_SECONDS, retry.backoff_seconds),
        (patience.BACKOFF_FACTOR, retry.backoff_factor),
        (patience.LIMIT_SECONDS, seconds),
    ):
        task.set_env_variable(name, str(value))


def _mount(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Give a pod the folders that it writes to: Kubeflow's own are there already, below / as emptyDirs."""
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp", size_limit=settings.tmp_size)
    size = settings.shared_memory(stage)
    if size:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=f"{size}Mi"
        )


def _identify(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Say who the pod is: its user, its labels, its credentials, and where its image comes from."""
    user = None if settings.user == PLATFORM else settings.user
    kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    ours = {"name": "alfamix", "component": stage, "version": images.TAG, "managed-by": "kubeflow-pipelines"}
    labels = {PREFIX + key: label_value(value) for key, value in ours.items()}
    for key, value in sorted({**settings.labels, **labels}.items()):
        kubernetes.add_pod_label(task, key, value)
    kubernetes.set_image_pull_policy(task, settings.images.pull_policy)
    if settings.images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.images.pull_secrets))
    storage = settings.storage
    if storage.secret:
        keys = {
            storage.access_key: access.ACCESS_KEY_ID,
            storage.secret_key: access.SECRET_ACCESS_KEY,
            storage.session_token: access.SESSION_TOKEN,
        }
        kubernetes.use_secret_as_env(task, storage.secret, keys, optional=True)
    places = {access.ENDPOINT_URL: storage.endpoint_url, access.REGION: storage.region}
    if storage.ca_config_map:
        kubernetes.use_config_map_as_volume(task, storage.ca_config_map, CA_FOLDER)
        places[access.CA_BUNDLE] = f"{CA_FOLDER}/ca.crt"
    for name, value in sorted(
        {**settings.environment, **{key: value for key, value in places.items() if value}}.items()
    ):
        task.set_env_variable(name, value)


def label_value(text: str) -> str:
    """Return a text as the value of a Kubernetes label, whatever it is: ``1.0.0+cu128`` becomes ``1.0.0-cu128``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")
