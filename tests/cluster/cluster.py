"""The cluster under test: its runs by Kubeflow's client, its pods by that of Kubernetes, and the clean-up."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kubernetes import client, config

from alfamix_core.errors import InputError
from alfamix_core.records.project import Project
from pipelines.engines.kubeflow import Kubeflow, Run, parameters
from pipelines.services import schedule

POLL_SECONDS = 2.0


class Pods:
    """The pods of a namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
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
        """Remove schedules, runs, and the experiment."""
        schedule.remove(self.kubeflow, self._project, self._uri)
        for run in self.all():
            if run.in_flight:
                self.terminate(run.run_id)
            self.kubeflow.ask(lambda run_id=run.run_id: self.kubeflow.client.delete_run(run_id))
        schedule.remove(self.kubeflow, self._project, self._uri)  # what had a run in flight
        experiment = self.kubeflow.experiment(self._project)
        self.kubeflow.ask(lambda: self.kubeflow.client.delete_experiment(experiment))

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
        pipelines = self.kubeflow.ask(lambda: self.kubeflow.client.list_pipelines(namespace=self.kubeflow.namespace))
        ours = [item.pipeline_id for item in pipelines.pipelines or () if item.display_name == "alfamix-round"]
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
