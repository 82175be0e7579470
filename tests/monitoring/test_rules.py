"""The alerts and recording rules: what each must have, and that its promtool tests can fail."""

import re
import shutil
from collections import defaultdict

import pytest
import yaml

from alfamix_core.telemetry.metrics import ALL
from monitoring import latest
from tests.monitoring.expressions import used
from tests.monitoring.rules import MONITORING, RULES, RUNBOOK, TESTS, alerts, recorded, rules, seconds
from tests.servers.prometheus import promtool

SERIES = {metric.name: set(metric.all_labels) for metric in ALL}
SCRAPED = {"job", "instance"}
"""Labels that Prometheus itself gives, or the push."""
OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity", "project"}}
"""Series that Prometheus itself makes, and their labels beside those."""


def labels_of(name: str) -> set[str]:
    """Return the labels that the series of a metric or of a recording rule can have."""
    if name in recorded():
        return set().union(*(labels_of(each) for each in used(recorded()[name]).metrics))
    return (SERIES | OWN)[name] | SCRAPED


def wrong(expression: str) -> list[str]:
    """Return the metrics and labels of an expression that do not exist."""
    found = used(expression)
    unknown = sorted(found.metrics - SERIES.keys() - recorded().keys() - OWN.keys())
    if unknown:
        return [f"no such metric: {name}" for name in unknown]
    known = set().union(*map(labels_of, found.metrics)) if found.metrics else set()
    return [f"no metric of it has the label {name}: {expression}" for name in sorted(found.labels - known)]


def test_promtool_accepts_the_rules():
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtools_own_tests_pass():
    done = promtool("test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_example_configuration(tmp_path):
    shutil.copytree(MONITORING, tmp_path / "monitoring")
    done = promtool("check", "config", tmp_path / "monitoring" / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") >= 1 + len(RULES)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_only_what_the_catalogue_has(rule):
    assert wrong(rule["expr"]) == []


def test_a_metric_or_label_that_does_not_exist_is_found():
    assert wrong("alfamix_no_such_metric > 1") == ["no such metric: alfamix_no_such_metric"]
    assert wrong('up{colour="red"}') == ['no metric of it has the label colour: up{colour="red"}']


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_is_complete(alert):
    assert alert.labels["severity"] in ("warning", "critical")
    assert set(alert.annotations) == {"summary", "description", "runbook"}
    assert alert.annotations["runbook"] == f"docs/runbook.md#{alert.anchor}"
    assert f"\n## {alert.name}\n" in RUNBOOK.read_text(encoding="utf-8")
    assert seconds(alert.waits) > 0, "a single failed scrape must not fire it"


def test_names_are_unique():
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_has_a_case_that_fires_it_and_one_that_does_not(alert):
    cases = defaultdict(list)
    for path in TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("alert_rule_test", []):
                cases[case["alertname"]].append(bool(case["exp_alerts"]))
    assert set(cases[alert.name]) == {True, False}


@pytest.mark.faults
@pytest.mark.parametrize("instead", ["vector(1) < 0", "vector(1)"], ids=["never", "always"])
def test_the_cases_notice_each_alert_that_never_or_always_fires(instead, tmp_path):
    shutil.copytree(MONITORING / "rules", tmp_path / "rules")
    path = tmp_path / "rules" / "alerts.yml"
    text = yaml.safe_load(path.read_text())
    for group in text["groups"]:
        for rule in group["rules"]:
            rule["expr"] = instead
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    done = promtool("test", "rules", *sorted((tmp_path / "rules" / "tests").glob("*.yml")))
    assert done.returncode != 0
    noticed = set(re.findall(r"alertname: (\w+), time", done.stdout + done.stderr))
    assert noticed == {alert.name for alert in alerts()}


def test_the_latest_values_are_fresh():
    assert latest.FILE.read_text(encoding="utf-8") == latest.text(), "run `make docs`"
