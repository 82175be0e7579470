"""A real Prometheus watches a project whose second round fails: what it says is what the project's files say.

`make e2e-monitoring` runs three rounds, `.ci/run` two. The rules are those of monitoring/rules; every ``for:`` is
divided by ``_HURRY``, and they are evaluated each second. Expressions and thresholds are untouched.
"""

import csv
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from tests.conftest import _free_ports
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings
from tests.monitoring.rules import MONITORING, hurried
from tests.servers.prometheus import Prometheus, fetch, lint, prometheus, pushgateway, started, until

ROUNDS = int(os.environ.get("ALFAMIX_E2E_ROUNDS", "3"))
_HURRY = 900.0
_INTERVAL = 1
_STEADY = 8.0
"""Seconds: a scrape, the chain of rules, and the shortest hurried ``for:``."""
_BROKEN = 30
_ANSWERED = 10
FAILING, DOWN = {"AlfamixRoundFailing"}, {"AlfamixExporterDown"}
_EXPORTER, _PUSHED = 'job="alfamix-exporter"', 'job="alfamix"'
# what tells of the moment and not of the project
_OF_THE_MOMENT = "alfamix_exporter_.*|alfamix_data_oldest_waiting_drop_age_seconds"


@dataclass
class Site:
    """The project, and the processes that watch it."""

    project: Path
    alfamix: Command
    environment: dict[str, str]
    folder: Path
    ports: dict[str, int]

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    @contextmanager
    def exporter(self):
        """Run `alfamix exporter` while the block lasts, always on the same port."""
        command = (*_command("exporter"), self.project, "--port", self.ports["exporter"], "--refresh", "1")
        url, log = f"{self.address('exporter')}/metrics", self.folder / "exporter.log"
        with started(*command, url=url, log=log, env=self.environment):
            yield

    @contextmanager
    def trigger(self):
        """Run `alfamix trigger` while the block lasts; it notices what is new, and does not start a run yet."""
        patient = ("--poll", "1", "--quiet", "90000", "--max-wait", "90000")
        command = (*_command("trigger"), self.project, "--port", self.ports["trigger"], *patient)
        url, log = f"{self.address('trigger')}/metrics", self.folder / "trigger.log"
        with started(*command, url=url, log=log, env=self.environment):
            yield

    def json(self, key: str) -> dict:
        return json.loads((self.project / key).read_text(encoding="utf-8"))

    def lines(self, pattern: str) -> list[dict]:
        return [json.loads(line) for path in self.project.glob(pattern) for line in path.read_text().splitlines()]

    def record(self, number: int) -> dict:
        return self.json(f"rounds/{number:06d}/round.json")

    def answer_some(self, number: int, answers: dict[str, str]) -> None:
        """Answer the best questions of a round and leave the others open."""
        asked = sorted(produced(self.project, number, "questions"), key=lambda question: question["rank"])
        rows = [(question["sample_id"], answers[question["sample_id"]]) for question in asked[:_ANSWERED]]
        path = self.folder / f"answers-{number}.csv"
        with path.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([("sample_id", "label"), *rows])
        self.alfamix("labels", "import", self.project, path)


MAY_BE_EMPTY = {
    "Alerts": "none may fire",
    "Annotator agreement": "there is one",
    "Agreement between annotators": "there is one",
    "Label budget spent": "none is set",
    "Labels per point of 0.01": "nothing may be gained yet",
    "Gain over the champion": "the first round has none",
    "Agreement with the champion": "the first round has none",
}
"""Panels that may have nothing to show of this project, and why."""


def _command(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pipelines.cli", name)


def _configuration(folder: Path, ports: dict[str, int], gateway: str) -> Path:
    """Write the example configuration with the addresses of this machine, and the hurried rules."""
    text = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    text["global"] = {"scrape_interval": f"{_INTERVAL}s", "evaluation_interval": f"{_INTERVAL}s"}
    text["rule_files"] = [str(path) for path in hurried(folder, _HURRY, _INTERVAL)]
    targets = {
        "alfamix-exporter": f"127.0.0.1:{ports['exporter']}",
        "alfamix-trigger": f"127.0.0.1:{ports['trigger']}",
        "pushgateway": gateway.removeprefix("http://"),
    }
    assert [job["job_name"] for job in text["scrape_configs"]] == list(targets)
    for job in text["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(text))
    return path


def expected(site: Site, number: int) -> dict[str, float]:
    """Return what Prometheus must say after round ``number`` was the last to be exported, read from the files."""
    record, rounds = site.record(number), len(list(site.project.glob("rounds/*/round.json")))
    outcome = record["outcome"]
    newest = site.record(rounds)
    asked = [line for each in range(1, number + 1) for line in produced(site.project, each, "questions")]
    answers = site.lines("labels/*.jsonl")
    manifests = site.lines("drops/*/manifest.jsonl")
    given = {line["id"]: line.get("split", "train") for line in manifests if line.get("label")}
    answered = {event["sample_id"] for event in answers}
    open_ = {question["sample_id"] for question in asked} - answered
    exported, planned = (datetime.fromisoformat(each) for each in (outcome["exported_at"], record["planned_at"]))
    values = {
        "round_number": rounds,
        "round_last_start_timestamp_seconds": datetime.fromisoformat(newest["planned_at"]).timestamp(),
        "round_last_success_timestamp_seconds": exported.timestamp(),
        "round_last_duration_seconds": (exported - planned).total_seconds(),
        "round_budget_queries": 20,
        "round_queries": len(produced(site.project, number, "questions")),
        "queries_total": len(asked),
        "queue_open_queries": len(open_),
        'queue_answers_total{kind="label"}': len(answers),
        'data_samples{state="labelled", split="test"}': sum(split == "test" for split in given.values()),
        'data_samples{state="labelled", split="train"}': sum(s == "train" for s in given.values()) + len(answered),
        'data_samples{state="queried"}': len(open_),
        'data_samples{state="pool"}': len(manifests) - len(given) - len(answered) - len(open_),
        "champion_round": site.json("champion.json")["round"],
        'model_metric{split="test", metric="accuracy"}': outcome["metrics"]["accuracy"],
        'model_expected_calibration_error{split="test"}': outcome["metrics"]["expected_calibration_error"],
        "round_quarantined_ratio": 0,
        "round_quarantine_limit_ratio": 0.05,
    }
    for state in ("planned", "failed", "exported", "closed", "lost"):
        values[f'round_state{{state="{state}"}}'] = float(state == newest["state"])
    for stage, total in outcome["stages"].items():
        values[f'stage_duration_seconds{{stage="{stage}"}}'] = total["seconds"]
    for name, count in outcome["labels"].items():
        values[f'data_class_labels{{class="{name}"}}'] = count
    return values


def wait_for_values(server: Prometheus, wanted: dict[str, float], job: str) -> None:
    """Wait until Prometheus has exactly these values of a job."""

    def different() -> list[str]:
        found = []
        for name, value in wanted.items():
            metric, _, labels = name.rstrip("}").partition("{")
            series = f"alfamix_{metric}{{{', '.join(part for part in (job, labels) if part)}}}"
            values = list(server.values(series).values())
            if values != [pytest.approx(value, rel=1e-12)]:
                found.append(f"{series} is {values}, not {value}")
        return found

    until(lambda: not different() or None, f"the values of {job}: {different()}", 60)


def wait_for_alerts(server: Prometheus, wanted: set[str]) -> None:
    """Wait until exactly these alerts fire, and keep firing for longer than a change may need."""
    deadline, since = time.monotonic() + 90, None
    while since is None or time.monotonic() < since + _STEADY:
        firing = server.alerts()
        assert firing == wanted or time.monotonic() < deadline, f"firing: {sorted(firing)}, not {sorted(wanted)}"
        since = (since or time.monotonic()) if firing == wanted else None
        time.sleep(0.2)


def ever_fired(server: Prometheus) -> set[str]:
    found = server.values('max_over_time(ALERTS{alertstate="firing"}[1h])')
    return {dict(labels)["alertname"] for labels in found}


def project_series(server: Prometheus) -> dict:
    return server.values(f'{{__name__=~"alfamix_.*", __name__!~"{_OF_THE_MOMENT}", {_EXPORTER}}}')


def check_values(site: Site, server: Prometheus, exported: int) -> None:
    """The numbers on both ways are those of the files."""
    for job in (_EXPORTER, _PUSHED):
        wait_for_values(server, expected(site, exported), job)


def ours(exposition: str) -> str:
    """Return our part of an exposition; a Pushgateway also reports on itself."""
    return "".join(line + "\n" for line in exposition.splitlines() if "alfamix_" in line)


def drawn(server: Prometheus) -> dict[str, bool]:
    """Run the query of every panel of the dashboards; return whether it has a result, by title."""
    found = {}
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                answer = server.ask("query", query=target["expr"].replace("$project", "digits"))
                found[panel["title"]] = found.get(panel["title"], False) or bool(answer["result"])
    return found


def break_images(folder: Path) -> Path:
    """Write a delivery of files that are not images; return its manifest."""
    folder.mkdir()
    lines = [{"uri": f"broken-{index}.png", "id": f"broken-{index}"} for index in range(_BROKEN)]
    for line in lines:
        (folder / line["uri"]).write_bytes(b"not an image")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "manifest.jsonl"


def mend_images(folder: Path, originals: Path) -> dict[str, str]:
    """Add images that were missing; return them by sample."""
    found = dict(zip(sorted(folder.glob("*.png")), sorted(originals.glob("*.png")), strict=False))
    for path, original in found.items():
        path.write_bytes(original.read_bytes())
    return {path.stem: original.stem for path, original in found.items()}


def check(site: Site, server: Prometheus, exported: int, firing: set[str]) -> None:
    """On either way, the numbers are those of the files, and exactly these alerts fire."""
    check_values(site, server, exported)
    wait_for_alerts(server, firing)
    assert set(server.targets().values()) == {"up"}


@pytest.mark.monitoring
@pytest.mark.slow
def test_prometheus_sees_what_the_files_say_and_the_alerts_that_should_fire(
    tmp_path: Path, digits: Path, alfamix: Command, environment: dict[str, str]
):
    assert ROUNDS in (2, 3)
    ports = dict(zip(("exporter", "trigger"), _free_ports(2), strict=True))
    site = Site(tmp_path / "project", alfamix, environment, tmp_path, ports)
    answers = dict(csv.reader((digits.parent / "answers.csv").read_text(encoding="utf-8").splitlines()))
    with pushgateway(tmp_path) as gateway:
        pushing = settings("metrics.way=pushgateway", f"metrics.url={gateway}", *SMALL)
        alfamix("init", site.project, "--name", "digits", *INIT, "--data-prefix", tmp_path, *pushing)
        alfamix("drop", site.project, digits)
        configuration = _configuration(tmp_path, ports, gateway)
        with site.trigger(), prometheus(tmp_path, configuration) as server:
            with site.exporter():
                alfamix("round", site.project)
                check(site, server, 1, set())
                site.answer_some(1, answers)

                alfamix("drop", site.project, break_images(tmp_path / "broken"))
                alfamix("round", site.project, status=2)
                assert site.record(2)["state"] == "failed"
                check(site, server, 1, FAILING)
                lasting = FAILING
                if ROUNDS == 3:
                    mended = mend_images(tmp_path / "broken", digits.parent)
                    answers |= {sample: answers[original] for sample, original in mended.items()}
                    alfamix("round", site.project, "--fresh")  # what embed found unreadable is cached
                    check(site, server, 2, set())
                    site.answer_some(2, answers)
                    alfamix("round", site.project)
                    check(site, server, 3, set())
                    lasting = set()
                for url in (f"{gateway}/metrics", *(f"{site.address(name)}/metrics" for name in ports)):
                    assert lint(ours(fetch(url))) == "", url
                empty = [name for name, found in drawn(server).items() if not found]
                assert set(empty) <= set(MAY_BE_EMPTY), sorted(empty)
                before = project_series(server)
                assert len(before) > 50
            wait_for_alerts(server, lasting | DOWN)
            number = server.value(f"alfamix_round_number{{{_PUSHED}}}")
            assert server.value("project:alfamix_round_number:latest") == number, "what was pushed takes over"
            with site.exporter():
                until(lambda: project_series(server) == before, "the restarted exporter says the same")
                wait_for_alerts(server, lasting)
            assert ever_fired(server) == FAILING | DOWN
