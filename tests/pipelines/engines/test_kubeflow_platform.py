"""What reaches the API of a platform's settings, and the commands that take them."""

import json
from pathlib import Path

import pytest
import yaml

from pipelines import platform_settings
from pipelines.engines.kubeflow import Kubeflow
from pipelines.services import cron, schedule

ROOT = Path(__file__).parents[3]
URI = "s3://bucket/birds"


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings that the environment names."""
    path = tmp_path / "platform.toml"
    path.write_text('service_account = "alfamix-stages"\n[images]\nregistry = "r.example.org/x"\n', "utf-8")
    monkeypatch.setenv(platform_settings.ENVIRONMENT, str(path))
    return path


def test_runs_and_schedules_have_the_images_and_the_service_account_of_the_platform(
    platform, kubeflow, server, settings
):
    kubeflow.start(settings, URI)
    (run,) = server.runs.values()
    assert run["service_account"] == "alfamix-stages"
    (version,) = server.versions.values()
    executors = version["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert all(executor["container"]["image"].startswith("r.example.org/x/alfamix-") for executor in executors)
    change = schedule.put(kubeflow, settings, URI, cron.parse("0 0 6 * * *"))
    assert server.recurring[change.schedule.recurring_run_id]["service_account"] == "alfamix-stages"


def test_other_settings_are_another_version_and_the_same_settings_the_same(platform, kubeflow, server):
    first = kubeflow.version()
    assert kubeflow.version() == first
    platform.write_text("run_hours = 30\n", "utf-8")
    assert Kubeflow(server.endpoint).version() != first
    assert len(server.versions) == 2


def test_without_settings_kubeflow_chooses_the_service_account(kubeflow, server, settings, monkeypatch):
    monkeypatch.delenv(platform_settings.ENVIRONMENT, raising=False)
    kubeflow.start(settings, URI)
    assert not next(iter(server.runs.values())).get("service_account")


def test_wrong_settings_stop_before_the_api_is_asked(platform, server, birds):
    platform.write_text("gpus = 3\n", "utf-8")
    done = birds.alfamix("trigger", birds.project, "--engine", "kubeflow", "--endpoint", server.endpoint, "--once")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f'alfamix: {platform}: unknown field "gpus"\n'
    assert not server.pipelines


def test_compile_takes_settings_of_a_file_or_of_the_environment(platform, alfamix, tmp_path):
    def image() -> str:
        spec = next(yaml.safe_load_all((tmp_path / "a.yaml").read_text("utf-8")))
        return str(spec["deploymentSpec"]["executors"]["exec-train"]["container"]["image"])

    assert alfamix("compile", "a.yaml").exit_code == 0
    assert image().startswith("r.example.org/x/alfamix-train:")
    (tmp_path / "other.toml").write_text("", "utf-8")
    assert alfamix("compile", "a.yaml", "--settings", "other.toml").exit_code == 0
    assert image().startswith("ghcr.io/")
    done = alfamix("compile", "b.yaml", "--digests", "none")
    assert (done.exit_code, done.stderr) == (2, "alfamix: none: cannot be read: No such file or directory\n")
    assert not (tmp_path / "b.yaml").exists()


def test_settings_lists_those_of_the_platform(alfamix):
    done = alfamix("settings", "--platform", "--markdown")
    assert done.stdout == (ROOT / "docs" / "platform-settings.md").read_text("utf-8")
    assert "run_hours" in alfamix("settings", "--platform").stdout
    assert "run_hours" not in alfamix("settings").stdout


def test_the_page_of_the_platforms_settings_is_a_table_of_json_defaults():
    rows = [line.split(" | ") for line in platform_settings.markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        json.loads(row[2].strip("`"))
