"""promote, rollback, doctor, clean, and withdrawals: what the commands say and how they end."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime

from alfamix_core.project import objects, planning
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project
from alfamix_core.records.stage import Quarantined
from alfamix_core.storage import open_store
from tests.alfamix_core.project.conftest import Made, commit
from tests.alfamix_core.project.test_champion import trained


def test_a_healthy_project_is_well_and_a_damaged_one_has_findings_and_status_1(birds):
    birds.files("x.png")
    birds.run("drop", "birds", "new")
    assert birds.run("doctor", "birds") == "all is well\n"
    assert birds.run("doctor", "birds", "--deep", "--json") == "[]\n"
    birds.put("labels/bad.jsonl", "?")
    result = birds.alfamix("doctor", "birds")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("waiting: labels/bad.jsonl is set aside: labels/bad.jsonl line 1: is not JSON")
    result = birds.alfamix("doctor", "birds", "--json")
    assert (result.exit_code, [each["kind"] for each in json.loads(result.stdout)]) == (1, ["waiting"])


def test_a_sample_that_was_repaired_is_released(birds):
    birds.files("x.png")
    birds.run("drop", "birds", "new")
    key = next(birds.project.glob("files/*")).name[:16]
    birds.commit(1, quarantine=[Quarantined(sample_id=key, uri="x", reason="?")])
    assert json.loads(birds.run("status", "birds", "--json"))["counts"]["quarantined"] == 1
    result = birds.alfamix("doctor", "birds", "--release", "--sample", "z")
    assert (result.exit_code, result.stderr) == (2, 'alfamix: sample "z" is not in quarantine\n')
    assert birds.run("doctor", "birds", "--release") == "released 1 samples from the quarantine\n"
    assert json.loads(birds.run("status", "birds", "--json"))["counts"]["quarantined"] == 0
    result = birds.alfamix("doctor", "birds", "--sample", "z")
    assert (result.exit_code, result.stderr) == (2, "alfamix: --sample: is for --release\n")


def test_withdrawn_samples_are_counted_in_the_status(birds):
    birds.configure(data_prefixes=[birds.new.as_uri()])
    birds.files("x.png", "y.png")
    birds.run("drop", "birds", "new")
    gone = birds.folder / "gone.txt"
    gone.write_text(f"{birds.new.as_uri()}/x.png\n")
    assert birds.run("drop", "birds", gone, "--withdraw", "--reason", "no consent") == "withdrew 1 samples\n"
    assert birds.run("drop", "birds", gone, "--withdraw") == "no effect: all were withdrawn before\n"
    assert birds.run("status", "birds").endswith(", 1 withdrawn\n")
    gone.write_bytes(b"\xff")
    result = birds.alfamix("drop", "birds", gone, "--withdraw")
    assert (result.exit_code, result.stderr[:40]) == (2, f"alfamix: {gone} must be UTF-8 text"[:40])


def test_a_person_promotes_and_rolls_back(birds):
    for number in (1, 2):
        made = Made(open_store(birds.project.as_uri()), ExitStack())
        trained(made, number, promoted=False)
    assert birds.run("promote", "birds", "--round", 1) == "the model of round 1 is the champion\n"
    said = birds.run("promote", "birds", "--round", 2, "--reason", "it sees at night")
    assert said == "the model of round 2 is the champion in place of round 1\n"
    assert json.loads(birds.run("rollback", "birds", "--json"))["round"] == 1
    result = birds.alfamix("rollback", "birds")
    assert (result.exit_code, result.stderr) == (2, "alfamix: there is no earlier champion to go back to\n")
    assert len(list(birds.project.glob("decisions/*.json"))) == 3


def test_a_round_that_cannot_finish_is_abandoned_with_a_reason(birds):
    planning.begin(open_store(birds.project.as_uri()), Holder(run_id="run-1"), datetime.now(UTC))
    for arguments, line in (
        (("--abandon",), "--abandon: needs --reason, in your words"),
        (("--abandon", "--reason", " "), "--abandon: needs --reason, in your words"),
        (("--reason", "?"), "--reason: is for --abandon"),
        (
            ("--abandon", "--reason", "?", "--force"),
            "--abandon: starts nothing, and excludes --plan, --force and --fresh",
        ),
    ):
        result = birds.alfamix("round", "birds", *arguments)
        assert (result.exit_code, result.stderr) == (2, f"alfamix: {line}\n")
    result = birds.alfamix("round", "birds", "--abandon", "--reason", "wrong camera")
    assert (result.exit_code, result.stderr.startswith("alfamix: the project is locked by run run-1")) == (2, True)
    birds.run("unlock", "birds")
    assert birds.run("round", "birds", "--abandon", "--reason", "wrong camera") == "round 1 is abandoned\n"
    (told,) = json.loads(birds.run("status", "birds", "--json"))["rounds"]
    assert (told["state"], told["reason"]) == ("abandoned", "wrong camera")
    assert json.loads(birds.run("round", "birds", "--plan", "--json"))["round"] == 2


def test_the_pages_of_the_rounds_are_written_beside_the_projects_and_a_cleaned_one_is_named(birds):
    store = open_store(birds.project.as_uri())
    digests = [objects.write(store, number, f"<p>{number}".encode()) for number in (1, 2)]
    for number, digest in enumerate(digests, start=1):
        commit(store, Project(name="birds", classes=("cat", "dog")), number, report=digest)
    store.delete(f"rounds/000001/objects/{digests[0]}")
    birds.run("report", "birds", "--pages", "--to", "out/all.html")
    assert (birds.folder / "out" / "all-round-000002.html").read_text() == "<p>2"
    assert [path.name for path in (birds.folder / "out").iterdir() if "round" in path.name] == ["all-round-000002.html"]
    assert 'href="all-round-000002.html"' in (birds.folder / "out" / "all.html").read_text(encoding="utf-8")
    result = birds.alfamix("report", "birds", "--round", 1)
    line = f"the report of round 1 was removed: rounds/000001/objects/{digests[0]} is gone"
    assert (result.exit_code, result.stderr) == (2, f"alfamix: {line}\n")


def test_a_promotion_that_a_killed_run_left_undone_is_applied_although_no_round_is_due(birds):
    birds.configure(round={"min_new_samples": 100, "min_new_labels": 100})
    trained(Made(open_store(birds.project.as_uri()), ExitStack()), 1)
    assert birds.alfamix("doctor", "birds").stdout.startswith("overdue: rounds/000001/round.json its promotion is not")
    assert birds.run("round", "birds").startswith("no round: since round 1 there are 0 new labels")
    assert json.loads((birds.project / "champion.json").read_text())["round"] == 1
    assert birds.run("doctor", "birds") == "all is well\n"


def test_a_withdrawal_waits_for_the_run_that_holds_the_project(birds):
    planning.begin(open_store(birds.project.as_uri()), Holder(run_id="run-1"), datetime.now(UTC))
    (birds.folder / "gone.txt").write_text("a\n")
    result = birds.alfamix("drop", "birds", "gone.txt", "--withdraw")
    assert (result.exit_code, result.stderr.startswith("alfamix: the project is locked by run run-1")) == (2, True)


def test_the_status_names_a_dead_run_that_the_lock_still_has(birds):
    birds.put("lock.json", {"revision": 1, "fence": 4, "until": "2020-01-01T00:00:00Z", "holder": {"run_id": "run-9"}})
    said = "run run-9 holds the project and is dead or past its deadline; the next run takes it over"
    assert birds.run("status", "birds").splitlines()[-1] == said
    assert json.loads(birds.run("status", "birds", "--json"))["locked"] == "", "nobody is kept from it"


def test_clean_says_what_would_go_and_deletes_it_only_when_told(birds):
    birds.put("failures/run-9.json", {})
    before = birds.tree()
    said = birds.run("clean", "birds", "--keep-rounds", 0)
    assert said == "failures/run-9.json\nwould delete 1 files, 0.0 MB; --yes does it\n"
    assert birds.tree() == before
    assert json.loads(birds.run("clean", "birds", "--yes", "--json"))["keys"] == ["failures/run-9.json"]
    assert birds.run("clean", "birds", "--yes") == "deleted 0 files, 0.0 MB\n"
