"""A round from images to questions and back, through the real pipeline."""

import csv
import json
from pathlib import Path

from tests.e2e.conftest import INIT, SMALL, Command, produced, settings


def test_two_rounds_with_answers_in_between(tmp_path: Path, digits: Path, alfamix: Command):
    project = tmp_path / "project"
    alfamix("init", project, *INIT, *settings(*SMALL))
    alfamix("drop", project, digits)
    alfamix("round", project)

    status = json.loads(alfamix("status", project, "--json").stdout)
    first = status["rounds"][0]
    assert first["state"] == "exported"
    assert first["outcome"]["queries"] == 20
    assert first["outcome"]["metrics"]["samples"] == 60
    assert status["champion"]["round"] == 1
    assert status["counts"] == status["counts"] | {"samples": 280, "queried": 20, "pool": 160, "train": 40}
    alfamix("report", project, "--round", "1", "--to", tmp_path / "round.html")
    assert (tmp_path / "round.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")

    assert "no round" in alfamix("round", project).stdout, "nothing is new"

    alfamix("queue", "export", project, tmp_path / "questions.csv")
    with (tmp_path / "questions.csv").open(encoding="utf-8", newline="") as stream:
        questions = list(csv.DictReader(stream))
    assert len(questions) == 20
    assert Path(questions[0]["thumbnail"].removeprefix("file://")).exists()

    alfamix("answer", project, "--oracle", digits.parent / "answers.csv")
    alfamix("round", project)
    status = json.loads(alfamix("status", project, "--json").stdout)
    assert [entry["state"] for entry in status["rounds"]] == ["closed", "exported"]
    assert status["rounds"][1]["counts"]["train"] == 60
    asked = [{line["sample_id"] for line in produced(project, number, "questions")} for number in (1, 2)]
    assert not asked[0] & asked[1], "a decided sample is never asked again"
    assert json.loads((project / "lock.json").read_text())["holder"] is None


def test_bad_files_are_quarantined_and_the_round_continues(tmp_path: Path, digits: Path, alfamix: Command):
    bad = sorted(digits.parent.glob("digit-02*.png"))[:4]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(bad[1].read_bytes()[:60])
    bad[2].write_text("this is text")
    bad[3].unlink()
    project = tmp_path / "project"
    alfamix("init", project, *INIT, "--data-prefix", digits.parent, *settings(*SMALL))
    alfamix("drop", project, digits)
    output = alfamix("round", project).stdout
    assert "4 samples could not be read" in output
    assert {line["sample_id"] for line in produced(project, 1, "quarantine")} == {path.stem for path in bad}
    assert not {line["sample_id"] for line in produced(project, 1, "questions")} & {path.stem for path in bad}


def test_too_many_bad_files_stop_the_round_and_are_named(tmp_path: Path, digits: Path, alfamix: Command):
    for path in sorted(digits.parent.glob("digit-02*.png"))[:4]:
        path.write_bytes(b"")
    project = tmp_path / "project"
    limit = "limits.quarantine_share=0.01"
    alfamix("init", project, *INIT, "--data-prefix", digits.parent, *settings(*SMALL, limit))
    alfamix("drop", project, digits)
    done = alfamix("round", project, status=2)
    assert len(done.stderr.splitlines()) == 1
    assert "4 of 280 samples cannot be read, more than limits.quarantine_share 0.01 allows" in done.stderr
    assert "digit-0200.png: " in done.stderr
    assert not (project / "rounds" / "000001" / "objects").exists()
    assert not (project / "champion.json").exists(), "the gate speaks before any promotion"
    status = json.loads(alfamix("status", project, "--json").stdout)
    assert status["rounds"][0]["state"] == "failed"
    assert "cannot be read" in status["rounds"][0]["reason"]
    assert not status["locked"]
