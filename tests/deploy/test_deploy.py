"""deploy/ rendered by kustomize: what Kubernetes accepts, and what must hold for every pod."""

import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from alfamix_core import __version__
from alfamix_core.errors import InputError
from alfamix_core.storage import connection
from pipelines import cli, platform_settings
from pipelines.compile import write_component
from pipelines.engines import kubeflow
from tests.deploy.pod_monitor import PodMonitor

DEPLOY = Path(__file__).parents[2] / "deploy"

Objects = list[dict[str, Any]]
Render = Callable[[Path], Objects]

EXAMPLES = ("cron-job", "multi-user", "openshift", "standalone")
CAN_TELL_USERS = ("cron-job", "multi-user")
ANY_USER = "openshift"
VERSIONS = ("1.29", kubernetes_validate.latest_version())
FOLDERS = ["base", *(f"examples/{name}" for name in EXAMPLES)]


@pytest.fixture(params=FOLDERS)
def objects(request: pytest.FixtureRequest, render: Render) -> Objects:
    return render(DEPLOY / request.param)


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [item for item in objects if item["kind"] in kinds]


def pods(objects: Objects) -> Iterator[dict[str, Any]]:
    """Yield the template of every pod."""
    for item in of_kind(objects, "Deployment"):
        yield item["spec"]["template"]
    for item in of_kind(objects, "CronJob"):
        yield item["spec"]["jobTemplate"]["spec"]["template"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(objects: Objects, version: str):
    """Strictly: a field that the schema does not know is refused too."""
    for item in objects:
        if item["apiVersion"] == "monitoring.coreos.com/v1":
            PodMonitor.parse(json.dumps(item), item["metadata"]["name"])
        else:
            kubernetes_validate.validate(item, version, strict=True)


def test_a_wrong_field_is_found():
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automount": False},
            VERSIONS[0],
            strict=True,
        )


# kubernetes.io/docs/concepts/security/pod-security-standards: what the restricted profile lets a pod mount
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


def broken_by(pod: dict[str, Any]) -> list[str]:
    """Return the rules of the restricted Pod Security Standard that a pod's spec breaks."""
    broken = [name for name in HOST if pod.get(name)]
    own = pod.get("securityContext", {})
    containers = pod["containers"] + pod.get("initContainers", [])
    for volume in pod.get("volumes", []):
        broken += [f"volume {kind}" for kind in set(volume) - {"name"} if kind not in ALLOWED_VOLUMES]
    for container in containers:
        context = {**own, **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True:
            broken.append("runAsNonRoot")
        if context.get("runAsUser") == 0:
            broken.append("runAsUser")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            broken.append("seccompProfile")
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            broken.append("allowPrivilegeEscalation")
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            broken.append("capabilities")
        broken += ["hostPort" for port in container.get("ports", ()) if port.get("hostPort")]
    return broken


def test_every_pod_meets_the_restricted_standard(objects: Objects):
    found = [template["spec"] for template in pods(objects)]
    assert len(found) == 2
    assert [broken_by(pod) for pod in found] == [[], []]
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"requests", "limits"} == set(container["resources"])
            assert all({"cpu", "memory", "ephemeral-storage"} == set(item) for item in container["resources"].values())
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "volume hostPath"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccompProfile"),
        ({"containers": [{"securityContext": {"capabilities": {"drop": ["ALL"]}}}]}, "allowPrivilegeEscalation"),
    ],
)
def test_a_pod_that_breaks_the_standard_is_found(render: Render, change: dict[str, Any], fault: str):
    pod = next(pods(render(DEPLOY / "base")))["spec"]
    assert fault in broken_by({**pod, **change})


def test_users_are_fixed_except_where_the_cluster_chooses_them(render: Render):
    for folder in FOLDERS:
        for template in pods(render(DEPLOY / folder)):
            context = template["spec"]["securityContext"]
            users = [context.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")]
            assert users == ([None] * 3 if folder.endswith(ANY_USER) else [65_532] * 3)


def test_stages_and_trigger_name_a_user_or_both_name_none(objects: Objects, tmp_path: Path):
    (data,) = [item["data"] for item in of_kind(objects, "ConfigMap") if "platform.toml" in item["data"]]
    (tmp_path / "platform.toml").write_text(data["platform.toml"], "utf-8")
    user = platform_settings.read(tmp_path / "platform.toml").user
    for template in pods(objects):
        assert template["spec"]["securityContext"].get("runAsUser", platform_settings.PLATFORM) == user


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_pod_has_a_network_policy_that_opens_only_the_port_of_its_metrics(render: Render, example: str):
    objects = render(DEPLOY / "examples" / example)
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "NetworkPolicy")}
    assert set(policies) == {"alfamix-trigger-cats", "alfamix-exporter-cats"}
    for template in pods(objects):
        labels = template["metadata"]["labels"].items()
        (policy,) = [item for item in policies.values() if item["podSelector"]["matchLabels"].items() <= labels]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        (container,) = template["spec"]["containers"]
        opened = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
        assert [port["containerPort"] for port in container.get("ports", ())] in (opened, [])
        reached = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
        assert {443, 9000} <= reached
        names = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
        assert {(protocol, port) for protocol in ("UDP", "TCP") for port in (53, 5353)} <= names
        assert (8888 in reached) == (container["args"][0] == "trigger")


def with_components(render: Render, folder: Path, example: str, *components: str) -> Objects:
    """Return what an example becomes with further components."""
    found = yaml.safe_load((DEPLOY / "examples" / example / "kustomization.yaml").read_text("utf-8"))
    found["resources"] = [relative(folder, "base")]
    listed = [Path(name).name for name in found["components"]]
    found["components"] = [relative(folder, name) for name in (*listed, *components)]
    for name in ("alfamix.env", "platform.toml"):
        shutil.copy(DEPLOY / "examples" / example / name, folder)
    (folder / "kustomization.yaml").write_text(json.dumps(found), "utf-8")
    objects = render(folder)
    for item in objects:
        if item["kind"] != "PodMonitor":
            kubernetes_validate.validate(item, VERSIONS[0], strict=True)
    return objects


@pytest.mark.parametrize("example", EXAMPLES)
def test_with_a_private_registry_and_an_authority_of_its_own_every_pod_starts(
    render: Render, example: str, tmp_path: Path
):
    objects = with_components(render, tmp_path, example, "pull-secret", "ca")
    accounts = {item["metadata"]["name"]: item for item in of_kind(objects, "ServiceAccount")}
    variables = {item["metadata"]["name"]: item["data"] for item in of_kind(objects, "ConfigMap")}
    for template in pods(objects):
        pod = template["spec"]
        assert accounts[pod["serviceAccountName"]]["imagePullSecrets"] == [{"name": "registry"}]
        (container,) = pod["containers"]
        (name,) = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
        path = Path(variables[name]["ALFAMIX_S3_CA_BUNDLE"])
        assert variables[name]["ALFAMIX_PROJECT"] == "s3://alfamix/cats"
        (mount,) = [item for item in container["volumeMounts"] if item["mountPath"] == str(path.parent)]
        (volume,) = [item for item in pod["volumes"] if item["name"] == mount["name"]]
        assert volume["configMap"] == {"name": "alfamix-ca", "items": [{"key": "ca.crt", "path": path.name}]}
        assert broken_by(pod) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_identity_of_the_cloud_reaches_the_node(render: Render, example: str, tmp_path: Path):
    for objects, addresses in (
        (render(DEPLOY / "examples" / example), set()),
        (
            with_components(render, tmp_path, example, "cloud-identity"),
            {"169.254.170.23/32", "169.254.169.254/32", "fd00:ec2::23/128"},
        ),
    ):
        for policy in of_kind(objects, "NetworkPolicy"):
            rules = [rule for rule in policy["spec"]["egress"] if {port["port"] for port in rule["ports"]} == {80}]
            assert {to["ipBlock"]["cidr"] for rule in rules for to in rule["to"]} == addresses


def test_a_limit_range_requests_disk(render: Render, tmp_path: Path):
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(tmp_path, "base")],
        "components": [relative(tmp_path, "disk")],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(overlay), "utf-8")
    (found,) = of_kind(render(tmp_path), "LimitRange")
    kubernetes_validate.validate(found, VERSIONS[0], strict=True)
    (limit,) = found["spec"]["limits"]
    assert set(limit["default"]) == set(limit["defaultRequest"]) == {"ephemeral-storage"}


def test_an_image_by_digest_replaces_the_tag(render: Render, tmp_path: Path):
    digest = "sha256:" + "0123456789abcdef" * 4
    (tmp_path / "digests").write_text(f"trigger r.example.org:5000/x/alfamix-trigger@{digest}\n", "utf-8")
    write_component(tmp_path / "images", tmp_path / "digests")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(tmp_path, "examples/cron-job")],
        "components": ["images"],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(overlay), "utf-8")
    found = {item["image"] for template in pods(render(tmp_path)) for item in template["spec"]["containers"]}
    assert found == {f"r.example.org:5000/x/alfamix-trigger@{digest}"}
    (tmp_path / "digests").write_text("trigger r.example.org/alfamix-trigger:1\n", "utf-8")
    with pytest.raises(InputError, match='must have a line "trigger image@sha256:…"'):
        write_component(tmp_path / "images", tmp_path / "digests")


def relative(folder: Path, name: str) -> str:
    return os.path.relpath(DEPLOY / name, folder.resolve())


def test_every_image_is_of_this_version(objects: Objects):
    found = {container["image"] for template in pods(objects) for container in template["spec"]["containers"]}
    assert found == {f"ghcr.io/alfamix/alfamix-trigger:{__version__}"}


def test_every_server_is_probed_where_it_listens(objects: Objects):
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (port,) = container["ports"]
        assert f"--port={port['containerPort']}" in container["args"]
        assert port["name"] == "metrics"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] > connection.LONGEST_CALL, (
            "a store that never answers ends the start with a line, not the kubelet without one"
        )


def test_every_command_is_one_of_ours(objects: Objects):
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    for template in pods(objects):
        (container,) = template["spec"]["containers"]
        assert container["command"] == ["alfamix"]
        name, *rest = container["args"]
        known[name].make_context(name, list(rest))  # parses, runs nothing


def test_every_name_that_a_pod_refers_to_exists(objects: Objects):
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
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


def test_a_selector_matches_only_the_pods_of_its_own_project(render: Render):
    cats = render(DEPLOY / "examples/standalone")
    dogs = json.loads(json.dumps(cats).replace("cats", "dogs"))
    ours = [template["metadata"]["labels"] for template in pods(cats)]
    labels_of_dogs = [template["metadata"]["labels"] for template in pods(dogs)]
    for item in of_kind(cats, "Deployment"):
        selector = item["spec"]["selector"]["matchLabels"].items()
        assert [selector <= labels.items() for labels in ours].count(True) == 1
        assert not any(selector <= labels.items() for labels in labels_of_dogs)
    (monitor,) = of_kind(cats, "PodMonitor")
    chosen = PodMonitor.parse(json.dumps(monitor), "").spec
    assert all(chosen.selector.matches(labels) for labels in ours)
    assert not any(chosen.selector.matches(labels) for labels in labels_of_dogs)
    stage = {"app.kubernetes.io/name": "alfamix", "app.kubernetes.io/component": "train"}
    assert not chosen.selector.matches({**stage, "app.kubernetes.io/instance": "cats"})
    ports = {
        port["name"] for template in pods(cats) for item in template["spec"]["containers"] for port in item["ports"]
    }
    assert {endpoint.port for endpoint in chosen.podMetricsEndpoints} == ports


def test_the_settings_are_settings(objects: Objects, tmp_path: Path):
    data = {key: value for item in of_kind(objects, "ConfigMap") for key, value in item["data"].items()}
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
def test_the_rights_are_minimal(render: Render, example: str):
    objects = render(DEPLOY / "examples" / example)
    roles = of_kind(objects, "Role", "ClusterRole")
    if example not in CAN_TELL_USERS:
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
    assert [item["name"] for item in binding["subjects"]] == ["alfamix-cats"]


@pytest.mark.parametrize("example", ["multi-user", "cron-job"])
def test_only_the_trigger_has_a_token_and_only_for_kubeflow(render: Render, example: str):
    objects = render(DEPLOY / "examples" / example)
    with_token = []
    for template in pods(objects):
        (container,) = template["spec"]["containers"]
        for volume in template["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", ()):
                assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
                with_token.append(container["name"])
        if container["name"] in with_token:
            names = {variable["name"] for variable in container["env"]}
            assert names == {"KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_NAMESPACE"}
    assert with_token == ["trigger"]


def test_a_cron_job_replaces_the_trigger(render: Render):
    objects = render(DEPLOY / "examples/cron-job")
    assert [item["metadata"]["name"] for item in of_kind(objects, "Deployment")] == ["alfamix-exporter-cats"]
    (job,) = of_kind(objects, "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    template = job["spec"]["jobTemplate"]["spec"]
    (container,) = template["template"]["spec"]["containers"]
    assert "--once" in container["args"]
    first, second = template["podFailurePolicy"]["rules"]
    assert (first["action"], first["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (second["action"], second["onExitCodes"]["values"]) == ("FailJob", [2])
    assert second["onExitCodes"]["containerName"] == container["name"]


def test_no_pod_gets_a_sidecar_of_a_mesh(objects: Objects):
    """A namespace of a Kubeflow profile injects one: a job would not end, and a policy would cut it off istiod."""
    assert [item["metadata"]["labels"]["sidecar.istio.io/inject"] for item in pods(objects)] == ["false", "false"]


def test_the_base_leaves_the_platform_its_defaults():
    assert tomllib.loads((DEPLOY / "base/platform.toml").read_text("utf-8")) == {}
