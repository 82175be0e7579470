"""The cluster under test: its runs by Kubeflow's client, its pods by that of Kubernetes, and the clean-up."""

import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import urllib3
import yaml
from kubernetes import client, config

from alfamix_core.errors import AlfamixError, InputError
from alfamix_core.records.project import Project
from pipelines.engines.kubeflow import PIPELINE, Kubeflow, Run, parameters
from pipelines.services import schedule
from tests.cluster.surroundings import MissingError

Item = TypeVar("Item")

POLL_SECONDS = 2.0
_CAN_BE_TERMINATED = ("PENDING", "RUNNING", "PAUSED")  # release 2.17 refuses any other, CANCELING too
_MOST_IMAGES = 50  # that a node lists


class Pods:
    """The pods of a namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        try:
            self._api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
        except (config.ConfigException, yaml.YAMLError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise MissingError(f"KUBECONFIG: {kubeconfig} gives no access to a cluster: {reason}") from None
        self._namespace = namespace

    def of_stage(self, run_id: str, stage: str) -> list[str]:
        """Return the names of a stage's running pods, in order."""
        selector = f"pipeline/runid={run_id},app.kubernetes.io/component={stage}"
        found = self._api.list_namespaced_pod(self._namespace, label_selector=selector).items
        return sorted(pod.metadata.name for pod in found if pod.status.phase == "Running")

    def kill(self, name: str) -> None:
        """Delete a pod without grace: it is gone when Argo looks, an Error, which Kubeflow's default repeats."""
        self._api.delete_namespaced_pod(name, self._namespace, grace_period_seconds=0)

    def evict(self, name: str) -> None:
        """Let a pod end as the kubelet evicts it: Failed with a message, which Kubeflow's default does not repeat."""
        status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}
        self._api.patch_namespaced_pod_status(name, self._namespace, {"status": status})

    def check(self, secret: str, keys: Iterable[str], images: Iterable[str]) -> None:
        """Check what runs need.

        Args:
            secret: Secret with the keys of the store.
            keys: keys that it must have.
            images: images that the nodes must have; none if they can pull them.

        Raises:
            MissingError: the cluster does not answer, or lacks the namespace, the Secret, a key or an image.
        """
        try:
            found = self._api.read_namespaced_secret(secret, self._namespace).data or {}
            nodes = self._api.list_node().items if images else ()
        except client.ApiException as error:
            what = f'Secret "{secret}" in the namespace "{self._namespace}"'
            raise MissingError(f"KUBECONFIG: the cluster refused {what}: HTTP {error.status} {error.reason}") from None
        except urllib3.exceptions.HTTPError as error:
            reason = " ".join(str(error).split())[:200]
            raise MissingError(f"KUBECONFIG: the cluster does not answer: {reason}") from None
        for key in keys:
            if key not in found:
                raise MissingError(f'ALFAMIX_CLUSTER_SECRET: the Secret "{secret}" has no key {key}')
        for node in nodes:
            listed = [name for image in node.status.images or () for name in image.names or ()]
            for image in images:
                if len(node.status.images or ()) < _MOST_IMAGES and not any(name.endswith(image) for name in listed):
                    raise MissingError(f"ALFAMIX_CLUSTER_IMAGES: the node {node.metadata.name} does not have {image}")

    def close(self) -> None:
        """Close the connections."""
        self._api.api_client.close()


class Runs:
    """The runs of one project."""

    def __init__(self, kubeflow: Kubeflow, project: Project, uri: str) -> None:
        self.kubeflow, self._project, self._uri = kubeflow, project, uri

    def all(self) -> list[Run]:
        """Return the project's runs, ended ones too, newest first."""
        experiment = self.kubeflow.experiment(self._project)
        pages = self.kubeflow.pages(
            lambda token: self.kubeflow.client.list_runs(
                token, 100, sort_by="created_at desc", experiment_id=experiment
            ),
            "runs",
            lambda item: (item.run_id, parameters(item).get("project_uri")),
        )
        return [self.kubeflow.run(run_id) for page in pages for run_id, uri in page if uri == self._uri]

    def terminate(self, run_id: str) -> None:
        """End a run as a person does on Kubeflow's pages."""
        self.kubeflow.ask(lambda: self.kubeflow.client._run_api.run_service_terminate_run(run_id))

    def remove(self) -> None:
        """Remove schedules, runs, and the experiment; a step that fails does not keep the others from being taken.

        The schedules go with the runs that they have in flight, which is what the command avoids.
        """
        ask, client = self.kubeflow.ask, self.kubeflow.client
        failed: list[str] = []

        def attempt(what: str, step: Callable[[], Item]) -> Item | None:
            try:
                return step()
            except AlfamixError as error:
                failed.append(f"{what}: {error}")
                return None

        shown = partial(schedule.show, self.kubeflow, self._project, self._uri)
        for row in attempt("the schedules", shown) or ():
            remove = partial(client.delete_recurring_run, row.recurring_run_id)
            attempt(f"schedule {row.recurring_run_id}", partial(ask, remove))
        for run in attempt("the runs", self.all) or ():
            if run.state in _CAN_BE_TERMINATED:
                attempt(f"the end of run {run.run_id}", partial(self.terminate, run.run_id))
            attempt(f"run {run.run_id}", partial(ask, partial(client.delete_run, run.run_id)))
        experiment = attempt("the experiment's id", partial(self.kubeflow.experiment, self._project))
        if experiment:
            attempt("the experiment", partial(ask, partial(client.delete_experiment, experiment)))
        assert not failed, "could not be removed: " + "; ".join(failed)

    def remove_version(self, before: set[str]) -> None:
        """Remove the pipeline's version that the test uploaded.

        Args:
            before: ids of the versions that existed before the test; they stay.
        """
        version = self.kubeflow.version()
        if version.version_id not in before:
            ids = version.pipeline_id, version.version_id
            self.kubeflow.ask(lambda: self.kubeflow.client.delete_pipeline_version(*ids))

    def versions(self) -> set[str]:
        """Return the ids of all versions of our pipeline."""
        pipelines = self.kubeflow.pages(
            lambda token: self.kubeflow.client.list_pipelines(token, 100, namespace=self.kubeflow.namespace),
            "pipelines",
            lambda item: (item.pipeline_id, item.display_name),
        )
        ours = [pipeline for page in pipelines for pipeline, name in page if name == PIPELINE]
        found: set[str] = set()
        for pipeline in ours:
            with contextlib.suppress(InputError):
                listed = self.kubeflow.pages(
                    lambda token, pipeline=pipeline: self.kubeflow.client.list_pipeline_versions(pipeline, token, 100),
                    "pipeline_versions",
                    lambda item: str(item.pipeline_version_id),
                )
                found.update(*listed)
        return found


def eventually(what: str, seconds: float, found: Callable[[], object], poll: float = POLL_SECONDS) -> object:
    """Return the first true answer; fail with the name of what did not come.

    Args:
        what: name for the message, such as "a pod of train".
        seconds: time after which it fails.
        found: function that is called until its answer is true.
        poll: time between two calls, in seconds.
    """
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(poll)
    return answer
