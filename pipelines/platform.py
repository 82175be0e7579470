"""The settings of a task for its platform: the only file that knows Kubernetes. Locally it sets the caching alone.

kfp-kubernetes 2.17 cannot express a read-only root (our images work with one; an admission policy may demand it by
the label app.kubernetes.io/name), requests for the node's disk (a LimitRange can, see deploy/disk), the priority of a
pod, and a label whose value is a parameter of the pipeline, such as the project. The backend itself drops capabilities
and escalation and sets seccomp for every task. An empty Secret or a missing one leaves the pod its own identity.

Kubeflow's launcher runs in the same container and reads the variables AWS_*, so that the store of projects has
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
        task: A step of the round, made of a component whose name is the stage's.
        settings: Settings of the cluster; None locally.
        cached: Whether an earlier output of the same step on the same inputs may stand in for it; never for a step
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
    """Return the settings of the run as a whole."""
    return dsl.PipelineConfig(active_deadline_seconds=None if settings is None else settings.run_seconds)


def shards_at_once(settings: PlatformSettings | None) -> int | None:
    """Return how many shards run at a time; None locally, where the runner decides."""
    return None if settings is None else settings.shards_at_once


def _size(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Set what the pod needs, and on which nodes it may run."""
    resources = settings.resources_of(stage)
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    if resources.gpus:
        task.set_accelerator_type(settings.accelerator).set_accelerator_limit(resources.gpus)
    for key, value in sorted(resources.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for taint in resources.tolerations:
        kubernetes.add_toleration(
            task, key=taint.key, operator=taint.operator, value=taint.value or None, effect=taint.effect
        )


def _limit(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Set the time limit of a pod, how often the stage may try again inside it, and how often Argo may replace it.

    The compiled retry strategy has a limit and waits, but no policy, because the SDK cannot name one: which pods Argo
    replaces is the cluster's decision, see docs/operations.md. It is compiled for 0 retries too, because a task
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
    """Mount the folders that a pod writes to; Kubeflow's own are emptyDirs below / already."""
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp", size_limit=settings.tmp_size)
    size = settings.shared_memory(stage)
    if size:
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=f"{size}Mi"
        )


def _identify(task: dsl.PipelineTask, settings: PlatformSettings, stage: str) -> None:
    """Set the identity of the pod: user, labels, credentials, and the source of its image."""
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
    address = {access.ENDPOINT_URL: storage.endpoint_url, access.REGION: storage.region}
    if storage.ca_config_map:
        kubernetes.use_config_map_as_volume(task, storage.ca_config_map, CA_FOLDER)
        address[access.CA_BUNDLE] = f"{CA_FOLDER}/ca.crt"
    for name, value in sorted(
        {**settings.environment, **{key: value for key, value in address.items() if value}}.items()
    ):
        task.set_env_variable(name, value)


def label_value(text: str) -> str:
    """Return any text as the value of a Kubernetes label: ``1.0.0+cu128`` becomes ``1.0.0-cu128``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")
