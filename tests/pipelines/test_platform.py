"""What the compiled pipeline says to Kubernetes, for every task; and that it says nothing locally."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from alfamix_core import __version__
from components import images
from components.stages import STAGES
from pipelines import platform_settings
from pipelines.compile import GOLDEN, compile_round
from pipelines.platform import label_value
from pipelines.platform_settings import PlatformSettings
from pipelines.round import alfamix_round

GPU = {"train", "evaluate", "embed"}


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline and the platform's part of a compiled file."""
    spec, platform = yaml.safe_load_all(path.read_text("utf-8"))
    return spec, platform["platforms"]["kubernetes"]


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the task of each component, wherever it is nested."""
    dags = [spec["root"], *(item for item in spec["components"].values() if "dag" in item)]
    found = {task["componentRef"]["name"]: task for dag in dags for task in dag["dag"]["tasks"].values()}
    return {name.removeprefix("comp-"): task for name, task in found.items() if "dag" not in spec["components"][name]}


def compiled(folder: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (folder / "platform.toml").write_text(text, "utf-8")
    compile_round(folder / "round.yaml", platform_settings.read(folder / "platform.toml"))
    return documents(folder / "round.yaml")


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Any], dict[str, Any]]:
    return documents(GOLDEN)


def test_the_golden_pipeline_has_every_stage(golden: Any):
    assert set(tasks(golden[0])) == set(images.COMPONENTS)
    assert __version__ == images.TAG


@pytest.mark.parametrize("stage", images.COMPONENTS)
def test_every_task_says_all_that_a_cluster_must_know(golden: Any, stage: str):
    spec, kubernetes = golden
    task = tasks(spec)[stage]
    container = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    pod = kubernetes["deploymentSpec"]["executors"][f"exec-{stage}"]

    assert container["image"] == f"ghcr.io/alfamix/alfamix-{stage}:{__version__}"

    resources = container["resources"]
    assert 0 < resources["cpuRequest"] <= resources["cpuLimit"]
    assert 0 < resources["memoryRequest"] <= resources["memoryLimit"]
    assert {"resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"} <= set(resources)

    assert pod["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}

    hours = PlatformSettings().stage(stage).hours
    assert pod["activeDeadlineSeconds"] == str(math.ceil(hours * 3600))

    retry = task["retryPolicy"]
    assert (retry["maxRetryCount"], retry["backoffDuration"], retry["backoffFactor"]) == (2, "30s", 2.0)
    assert {item["name"]: item["value"] for item in container["env"]} == {
        "ALFAMIX_STAGE_RETRIES": "2",
        "ALFAMIX_STAGE_BACKOFF_SECONDS": "30",
        "ALFAMIX_STAGE_BACKOFF_FACTOR": "2",
        "ALFAMIX_STAGE_LIMIT_SECONDS": pod["activeDeadlineSeconds"],
    }

    assert bool(task["cachingOptions"].get("enableCache")) == STAGES[stage].cached

    mounts = {mount["mountPath"]: mount for mount in pod["emptyDirMounts"]}
    assert mounts["/tmp"]["sizeLimit"] == "10Gi"
    if stage in GPU:
        assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert resources["accelerator"]["resourceCount"] == "1"
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert (mounts["/dev/shm"]["medium"], mounts["/dev/shm"]["sizeLimit"]) == ("Memory", "448Mi")
    else:
        assert "accelerator" not in resources
        assert "tolerations" not in pod
        assert "/dev/shm" not in mounts

    assert pod["podMetadata"]["labels"] == {
        "app.kubernetes.io/name": "alfamix",
        "app.kubernetes.io/component": stage,
        "app.kubernetes.io/version": __version__,
        "app.kubernetes.io/managed-by": "kubeflow-pipelines",
    }
    secret = pod["secretAsEnv"]
    assert [item["secretName"] for item in secret] == ["alfamix-s3"]
    names = {f"ALFAMIX_S3_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")}
    assert {item["envVar"] for item in secret[0]["keyToEnv"]} == names
    assert secret[0]["optional"]
    assert pod["imagePullPolicy"] == "IfNotPresent"


def test_a_run_has_a_deadline(golden: Any):
    assert golden[1]["pipelineConfig"] == {"activeDeadlineSeconds": 24 * 3600}


def test_each_setting_arrives_at_its_place(tmp_path: Path):
    text = """
        run_hours = 60.5
        user = 1000
        tmp_size = "50Gi"
        accelerator = "amd.com/gpu"
        labels = { project = "cats", "example.org/team" = "vision" }
        environment = { HTTPS_PROXY = "http://proxy:3128" }
        [images]
        registry = "registry.example.org:5000/team"
        pull_policy = "Always"
        pull_secrets = ["registry-login"]
        [storage]
        secret = "mlpipeline-minio-artifact"
        access_key = "accesskey"
        secret_key = "secretkey"
        session_token = "token"
        endpoint_url = "http://seaweedfs.kubeflow:9000"
        region = "eu-central-1"
        ca_config_map = "store-ca"
        [loader]
        workers = 8
        [train]
        gpus = 4
        memory_limit = "64Gi"
        node_selector = { "nvidia.com/gpu.product" = "NVIDIA-H200" }
        tolerations = [{ key = "pool", operator = "Equal", value = "train", effect = "NoExecute" }]
        [retry]
        backoff_seconds = 5
        backoff_factor = 3
        [stages]
        embed = { resources = "cpu" }
        score = { resources = "gpu", retries = 0 }
        train = { hours = 36, retries = 4 }
    """
    spec, kubernetes = compiled(tmp_path, text)
    executors, pods = spec["deploymentSpec"]["executors"], kubernetes["deploymentSpec"]["executors"]
    assert kubernetes["pipelineConfig"]["activeDeadlineSeconds"] == 217_800
    for stage in images.COMPONENTS:
        container, pod = executors[f"exec-{stage}"]["container"], pods[f"exec-{stage}"]
        assert container["image"] == f"registry.example.org:5000/team/alfamix-{stage}:{__version__}"
        assert {item["name"]: item["value"] for item in container["env"]} == {
            "HTTPS_PROXY": "http://proxy:3128",
            "ALFAMIX_S3_ENDPOINT_URL": "http://seaweedfs.kubeflow:9000",
            "ALFAMIX_S3_REGION": "eu-central-1",
            "ALFAMIX_S3_CA_BUNDLE": "/etc/alfamix-ca/ca.crt",
            "ALFAMIX_STAGE_RETRIES": {"score": "0", "train": "4"}.get(stage, "2"),
            "ALFAMIX_STAGE_BACKOFF_SECONDS": "5",
            "ALFAMIX_STAGE_BACKOFF_FACTOR": "3",
            "ALFAMIX_STAGE_LIMIT_SECONDS": pod["activeDeadlineSeconds"],
        }
        (ca,) = pod["configMapAsVolume"]
        assert (ca["configMapName"], ca["mountPath"]) == ("store-ca", "/etc/alfamix-ca")
        assert pod["securityContext"]["runAsUser"] == "1000"
        assert pod["imagePullPolicy"] == "Always"
        assert [item["secretName"] for item in pod["imagePullSecret"]] == ["registry-login"]
        assert pod["podMetadata"]["labels"]["project"] == "cats"
        assert pod["podMetadata"]["labels"]["example.org/team"] == "vision"
        assert pod["secretAsEnv"][0]["secretName"] == "mlpipeline-minio-artifact"
        assert pod["secretAsEnv"][0]["keyToEnv"] == [
            {"secretKey": "accesskey", "envVar": "ALFAMIX_S3_ACCESS_KEY_ID"},
            {"secretKey": "secretkey", "envVar": "ALFAMIX_S3_SECRET_ACCESS_KEY"},
            {"secretKey": "token", "envVar": "ALFAMIX_S3_SESSION_TOKEN"},
        ]
        assert {item["volumeName"]: item["sizeLimit"] for item in pod["emptyDirMounts"]}["tmp"] == "50Gi"
    train, pod = executors["exec-train"]["container"]["resources"], pods["exec-train"]
    assert (train["accelerator"]["resourceType"], train["accelerator"]["resourceCount"]) == ("amd.com/gpu", "4")
    assert train["resourceMemoryLimit"] == "64Gi"
    assert pod["nodeSelector"] == {"labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}}
    assert pod["tolerations"] == [{"key": "pool", "operator": "Equal", "value": "train", "effect": "NoExecute"}]
    assert {item["volumeName"]: item["sizeLimit"] for item in pod["emptyDirMounts"]}["shm"] == "4608Mi"
    assert pod["activeDeadlineSeconds"] == "129600"
    assert tasks(spec)["train"]["retryPolicy"] == {
        "maxRetryCount": 4,
        "backoffDuration": "5s",
        "backoffFactor": 3.0,
        "backoffMaxDuration": "217800s",
    }
    assert "maxRetryCount" not in tasks(spec)["score"]["retryPolicy"]  # JSON leaves 0 out
    assert "accelerator" in executors["exec-score"]["container"]["resources"]
    assert "accelerator" not in executors["exec-embed"]["container"]["resources"]
    assert "/dev/shm" in {item["mountPath"] for item in pods["exec-embed"]["emptyDirMounts"]}


def test_no_task_is_given_a_variable_that_kubeflows_launcher_reads(golden: Any, tmp_path: Path):
    """The launcher moves artifacts in the stage's container by AWS_*; ours would send it to another store."""
    text = '[storage]\nendpoint_url = "http://store:9000"\nregion = "here"\nca_config_map = "ca"'
    for spec, kubernetes in (golden, compiled(tmp_path, text)):
        for name, executor in spec["deploymentSpec"]["executors"].items():
            given = [item["name"] for item in executor["container"]["env"]]
            for secret in kubernetes["deploymentSpec"]["executors"][name]["secretAsEnv"]:
                given += [item["envVar"] for item in secret["keyToEnv"]]
            assert not [item for item in given if item.startswith("AWS_")]


def test_the_user_may_be_the_platforms_own(tmp_path: Path):
    """OpenShift's restricted-v2 refuses a pod that names a user outside of its project's range."""
    _, kubernetes = compiled(tmp_path, 'user = "platform"')
    for pod in kubernetes["deploymentSpec"]["executors"].values():
        assert pod["securityContext"] == {"runAsNonRoot": True}


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("0.1.0", "0.1.0"),
        ("1.0.0rc1+cu128.g1a2b", "1.0.0rc1-cu128.g1a2b"),
        ("1.0!2/é-", "1.0-2"),
        ("9" * 62 + "--x", "9" * 62),
    ],
)
def test_any_version_is_a_label(version: str, label: str):
    assert label_value(version) == label
    assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", label)


def test_without_a_secret_the_pods_identity_serves(tmp_path: Path):
    _, kubernetes = compiled(tmp_path, '[storage]\nsecret = ""')
    assert all("secretAsEnv" not in pod for pod in kubernetes["deploymentSpec"]["executors"].values())


def test_a_cluster_without_a_gpu_is_asked_for_none(tmp_path: Path):
    spec, kubernetes = compiled(
        tmp_path, "gpu = { gpus = 0, tolerations = [] }\ntrain = { gpus = 0, tolerations = [] }"
    )
    assert all(
        "accelerator" not in item["container"]["resources"] for item in spec["deploymentSpec"]["executors"].values()
    )
    assert all("tolerations" not in pod for pod in kubernetes["deploymentSpec"]["executors"].values())


def test_on_this_machine_a_task_has_its_caching_rule_and_nothing_else():
    spec = alfamix_round.pipeline_spec
    for name, executor in spec.deployment_spec["executors"].items():
        container = executor["container"]
        assert set(container) <= {"image", "command", "args"}, name
    platform = alfamix_round.platform_spec.platforms
    assert not platform["kubernetes"].deployment_spec.executors if "kubernetes" in platform else True
    assert not any(task.get("retryPolicy") for task in tasks(_as_dict(spec)).values())


def _as_dict(spec: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    found: dict[str, Any] = json_format.MessageToDict(spec)
    return found
