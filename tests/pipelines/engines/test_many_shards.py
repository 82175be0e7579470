"""What 256 shards mean for the compiled workflow, for Argo's node status and for the arguments of ``select``.

The numbers are in docs/operations.md. Nodes and arguments are assembled here as Argo 4.0.8 and Kubeflow Pipelines
2.17.0 write them (argocompiler/dag.go and container.go, driver/driver.go, metadata/converter.go); no cluster made them.
"""

import base64
import gzip
import json
import uuid

import pytest
import yaml

from pipelines.compile import GOLDEN

LARGEST_WORKFLOW = 1024 * 1024
"""workflow/packer/packer.go: a workflow beyond it has its nodes compressed, and fails if that does not help."""
LONGEST_ARGUMENT = 131_072
"""Linux' MAX_ARG_STRLEN; from 4.0.1 and 3.7.10 on Argo moves longer arguments into a ConfigMap, see workflowpod.go."""


@pytest.fixture(scope="module")
def spec():
    return next(yaml.safe_load_all(GOLDEN.read_text("utf-8")))


@pytest.fixture(scope="module")
def kubernetes():
    return list(yaml.safe_load_all(GOLDEN.read_text("utf-8")))[1]["platforms"]["kubernetes"]


def node(name: str, kind: str, template: str, parameters: dict[str, str]) -> tuple[str, dict]:
    """Return a node of a workflow's status, and its id."""
    key = f"alfamix-round-x7k2p-{uuid.uuid5(uuid.NAMESPACE_URL, name).int % 10**10}"
    at = "2026-11-28T04:52:44Z"
    return key, {
        "id": key,
        "name": f"alfamix-round-x7k2p.root.round.a-round-is-due.for-loop-3.{name}",
        "displayName": name.rpartition(".")[2],
        "type": kind,
        "templateName": template,
        "templateScope": "local/alfamix-round-x7k2p",
        "phase": "Succeeded",
        "boundaryID": key,
        "startedAt": at,
        "finishedAt": at,
        "progress": "1/1",
        "resourcesDuration": {"cpu": 100, "memory": 100, "nvidia.com/gpu": 60},
        "inputs": {"parameters": [{"name": key, "value": value} for key, value in parameters.items()]},
        "outputs": {"parameters": [], "exitCode": "0"},
        "children": [key],
        "hostNodeName": "node-7",
    }


def status(spec, kubernetes, shards: int) -> dict[str, dict]:
    """Return the nodes of the loop: wrappers, and for each template the retry node that Argo's default adds."""
    nodes = []
    for index in range(shards):
        prefix = f"iteration.iteration({index}:{index})"
        name, loop = next(
            (name, item) for name, item in spec["components"].items() if "embed" in item.get("dag", {}).get("tasks", {})
        )
        item = {"component": json.dumps(loop), "task": loop_task(spec, name), "iteration-index": str(index)}
        nodes += [
            (prefix, "DAG", f"{name}-iteration", {"parent-dag-id": "17", "iteration-index": str(index)}),
            (f"{prefix}.iteration-item-driver", "Pod", "system-dag-driver", item),
            (f"{prefix}.iteration-item", "DAG", name, {"parent-dag-id": str(100 + index)}),
        ]
        for stage in ("embed", "score"):
            component = json.dumps(spec["components"][f"comp-{stage}"])
            driver = {
                "component": component,
                "task": json.dumps(loop["dag"]["tasks"][stage]),
                "container": json.dumps(spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]),
                "kubernetes-config": json.dumps(kubernetes["deploymentSpec"]["executors"][f"exec-{stage}"]),
                "parent-dag-id": str(200 + index),
            }
            patch = {"pod-spec-patch": driver["container"] + driver["kubernetes-config"] + component + uuid.uuid4().hex}
            nodes += [
                (f"{prefix}.iteration-item.{stage}-driver", "Pod", "system-container-driver", driver),
                (f"{prefix}.iteration-item.{stage}", "DAG", f"retry-{stage}", patch),
                (f"{prefix}.iteration-item.{stage}.executor", "Pod", "retry-system-container-impl", patch),
            ]
    found = {}
    for name, kind, template, parameters in nodes:
        for attempt in (name, f"{name}(0)"):
            key, value = node(attempt, "Retry" if attempt == name else kind, template, parameters)
            found[key] = value
    return found


def loop_task(spec, component: str) -> str:
    """Return the task of the loop, as the driver of each iteration gets it."""
    dags = [spec["root"], *(item for item in spec["components"].values() if "dag" in item)]
    found = [task for dag in dags for task in dag["dag"]["tasks"].values() if task["componentRef"]["name"] == component]
    return json.dumps(found[0])


def collected(shards: int) -> str:
    """Return ``--executor_input`` of select: each artifact with its id, type, uri and what its store is."""
    store = {
        "Provider": "s3",
        "Params": {
            **{"accessKeyKey": "accesskey", "secretKeyKey": "secretkey", "secretName": "mlpipeline-minio-artifact"},
            **{"disableSSL": "true", "endpoint": "seaweedfs.kubeflow:9000", "fromEnv": "false", "region": "minio"},
            **{"forcePathStyle": "true", "maxRetries": "5"},
        },
    }
    artifacts = [
        {
            "name": str(1000 + index),
            "type": {"instanceSchema": "title: system.Dataset\ntype: object\n"},
            "uri": f"s3://mlpipeline/v2/artifacts/alfamix-round/{uuid.uuid4()}/score/{uuid.uuid4()}/scores",
            "metadata": {"display_name": "scores", "store_session_info": json.dumps(store)},
        }
        for index in range(shards)
    ]
    return json.dumps({"inputs": {"artifacts": {"scores": {"artifacts": artifacts}}}}, separators=(",", ":"))


def compressed(nodes: dict[str, dict]) -> int:
    return len(base64.b64encode(gzip.compress(json.dumps(nodes, separators=(",", ":")).encode())))


def test_the_compiled_pipeline_does_not_grow_with_the_shards(spec):
    """It has one loop, and their number is known when the round runs."""
    assert GOLDEN.stat().st_size < 100_000


def test_the_node_status_of_256_shards_fits_when_it_is_compressed(spec, kubernetes):
    sizes = {}
    for shards in (16, 64, 256):
        nodes = status(spec, kubernetes, shards)
        assert len(nodes) == 18 * shards
        sizes[shards] = (len(json.dumps(nodes)), compressed(nodes))
    print(sizes)
    assert sizes[16][0] > LARGEST_WORKFLOW  # so that it is compressed
    assert sizes[256][1] + 2 * GOLDEN.stat().st_size < LARGEST_WORKFLOW  # the specification stands in it as JSON


def test_the_arguments_of_select_are_short_enough_up_to_200_shards_and_need_argo_4_0_1_beyond():
    lengths = {shards: len(collected(shards)) for shards in (16, 64, 200, 256)}
    print(lengths)
    assert lengths[200] < LONGEST_ARGUMENT < lengths[256] < LARGEST_WORKFLOW


def test_the_names_of_256_shards_are_a_short_parameter():
    """``snapshot`` returns them, and the driver of the loop passes them on."""
    assert len(json.dumps([str(shard) for shard in range(256)])) < 10_000
