"""deploy/ rendered by kustomize: what Kubernetes would take, and what must hold of every pod."""

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer

from alfamix_core import __version__
from pipelines import cli, kubeflow, platform_settings
from tests.deploy.pod_monitor import PodMonitor

DEPLOY = Path(__file__).parents[2] / "deploy"

Objects = list[dict[str, Any]]
Render = Callable[[Path], Objects]

EXAMPLES = ("cron-job", "multi-user", "standalone")
VERSIONS = ("1.29", kubernetes_validate.latest_version())
FOLDERS = ["base", *(f"examples/{name}" for name in EXAMPLES)]


@pytest.fixture(params=FOLDERS)
def objects(request: pytest.FixtureRequest, render: Render) -> Objects:
    return render(DEPLOY / request.param)


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [each for each in objects if each["kind"] in kinds]


def pods(objects: Objects) -> Iterator[dict[str, Any]]:
    """Yield the template of every pod."""
    for each in of_kind(objects, "Deployment"):
        yield each["spec"]["template"]
    for each in of_kind(objects, "CronJob"):
        yield each["spec"]["jobTemplate"]["spec"]["template"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(objects: Objects, version: str):
    """Strictly: a field that the schema does not know is refused too."""
    for each in objects:
        if each["apiVersion"] == "monitoring.coreos.com/v1":
            PodMonitor.parse(json.dumps(each), each["metadata"]["name"])
        else:
            kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_field_is_found():
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automount": False},
            VERSIONS[0],
            strict=True,
        )


def test_every_pod_is_without_rights_on_its_node(objects: Objects):
    found = list(pods(objects))
    assert len(found) == 2
    for template in found:
        pod = template["spec"]
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65_532,
            "runAsGroup": 65_532,
            "fsGroup": 65_532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} == set(container["resources"])
            assert all({"cpu", "memory"} == set(each) for each in container["resources"].values())
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_every_image_is_of_this_version(objects: Objects):
    found = {container["image"] for template in pods(objects) for container in template["spec"]["containers"]}
    assert found == {f"ghcr.io/alfamix/alfamix-trigger:{__version__}"}


def test_what_serves_is_probed_where_it_listens(objects: Objects):
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (port,) = container["ports"]
        assert f"--port={port['containerPort']}" in container["args"]
        assert port["name"] == "metrics"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_every_command_is_one_of_ours(objects: Objects):
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for template in pods(objects):
        (container,) = template["spec"]["containers"]
        assert container["command"] == ["alfamix"]
        name, *rest = container["args"]
        known[name].make_context(name, list(rest))  # parses, runs nothing


def test_every_name_that_a_pod_refers_to_is_there(objects: Objects):
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for template in pods(objects):
        pod = template["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
                else:
                    assert source["secretRef"] == {"name": "alfamix-s3", "optional": True}


def test_a_selector_meets_the_pods_of_its_own_project_alone(render: Render):
    cats = render(DEPLOY / "examples/standalone")
    dogs = json.loads(json.dumps(cats).replace("cats", "dogs"))
    ours = [template["metadata"]["labels"] for template in pods(cats)]
    theirs = [template["metadata"]["labels"] for template in pods(dogs)]
    for each in of_kind(cats, "Deployment"):
        selector = each["spec"]["selector"]["matchLabels"].items()
        assert [selector <= labels.items() for labels in ours].count(True) == 1
        assert not any(selector <= labels.items() for labels in theirs)
    (monitor,) = of_kind(cats, "PodMonitor")
    chosen = PodMonitor.parse(json.dumps(monitor), "").spec
    assert all(chosen.selector.matches(labels) for labels in ours)
    assert not any(chosen.selector.matches(labels) for labels in theirs)
    stage = {"app.kubernetes.io/name": "alfamix", "app.kubernetes.io/component": "train"}
    assert not chosen.selector.matches({**stage, "app.kubernetes.io/instance": "cats"})
    ports = {
        port["name"] for template in pods(cats) for each in template["spec"]["containers"] for port in each["ports"]
    }
    assert {endpoint.port for endpoint in chosen.podMetricsEndpoints} == ports


def test_the_settings_are_settings(objects: Objects, tmp_path: Path):
    data = {key: value for each in of_kind(objects, "ConfigMap") for key, value in each["data"].items()}
    (tmp_path / "platform.toml").write_text(data.pop("platform.toml"), "utf-8")
    settings = platform_settings.read(tmp_path / "platform.toml")
    assert settings.storage.endpoint_url == data.get("ALFAMIX_S3_ENDPOINT_URL", "")
    assert settings.storage.region == data.get("ALFAMIX_S3_REGION", "")
    assert data["ALFAMIX_PROJECT"].startswith("s3://")
    assert data[platform_settings.ENVIRONMENT] == "/etc/alfamix/platform.toml"
    assert data[kubeflow.ENDPOINT].startswith("http://")
    known = {"ALFAMIX_PROJECT", platform_settings.ENVIRONMENT, kubeflow.ENDPOINT}
    assert set(data) <= known | {"KF_PIPELINES_UI_ENDPOINT", "ALFAMIX_S3_ENDPOINT_URL", "ALFAMIX_S3_REGION"}


def test_the_settings_file_is_where_the_pod_looks_for_it(objects: Objects):
    for template in pods(objects):
        (container,) = template["spec"]["containers"]
        if container["args"][0] == "trigger":
            assert {"name": "platform", "mountPath": "/etc/alfamix", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_rights_are_the_least(render: Render, example: str):
    objects = render(DEPLOY / "examples" / example)
    roles = of_kind(objects, "Role", "ClusterRole")
    if example == "standalone":
        assert not roles
        return
    (role,) = roles
    assert role["kind"] == "Role"
    (rule,) = role["rules"]
    assert rule["apiGroups"] == ["pipelines.kubeflow.org"]
    assert set(rule["resources"]) == {"pipelines", "experiments", "runs"}
    assert set(rule["verbs"]) == {"create", "get", "list"}
    (binding,) = of_kind(objects, "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == ["alfamix-cats"]


@pytest.mark.parametrize("example", ["multi-user", "cron-job"])
def test_the_trigger_alone_has_a_token_and_for_kubeflow_alone(render: Render, example: str):
    objects = render(DEPLOY / "examples" / example)
    with_token = []
    for template in pods(objects):
        (container,) = template["spec"]["containers"]
        for volume in template["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", ()):
                assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
                with_token.append(container["name"])
        if container["name"] in with_token:
            assert {each["name"] for each in container["env"]} == {"KF_PIPELINES_SA_TOKEN_PATH", kubeflow.NAMESPACE}
    assert with_token == ["trigger"]


def test_a_cron_job_stands_in_for_the_trigger(render: Render):
    objects = render(DEPLOY / "examples/cron-job")
    assert [each["metadata"]["name"] for each in of_kind(objects, "Deployment")] == ["alfamix-exporter-cats"]
    (job,) = of_kind(objects, "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    template = job["spec"]["jobTemplate"]["spec"]
    (container,) = template["template"]["spec"]["containers"]
    assert "--once" in container["args"]
    (rule,) = template["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert rule["onExitCodes"]["containerName"] == container["name"]


def test_the_base_leaves_the_platform_its_defaults():
    assert tomllib.loads((DEPLOY / "base/platform.toml").read_text("utf-8")) == {}
