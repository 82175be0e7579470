"""The commands of every day, less the round itself (tests/e2e)."""

import csv
import json

import pytest

from alfamix_core.records.stage import Quarantined


def project(birds):
    return json.loads((birds.project / "project.json").read_text())


def test_init_makes_a_project_named_after_its_place(birds):
    found = project(birds)
    assert (found["name"], found["classes"], found["strategy"]["name"]) == ("birds", ["cat", "dog", "owl"], "random")
    assert sorted(path.name for path in birds.project.iterdir() if path.is_file()) == ["project.json"]


def test_any_setting_may_be_set_as_json_or_as_text(birds):
    settings = [
        *("training.max_epochs=3", "strategy.parameters={}", "model.encoder=frozen", "limits.quarantine_share=0.5"),
        *('data_prefixes=["s3://bucket/data"]', "strategy.cold_start=random", "seed=7"),
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    said = birds.run("init", "a_b", "--classes", "1, two", "--budget", 5, *options)
    assert said == f"made the project {(birds.folder / 'a_b').as_uri()}\n"
    found = json.loads((birds.folder / "a_b" / "project.json").read_text())
    assert (found["name"], found["classes"], found["budget"], found["seed"]) == ("a-b", ["1", "two"], 5, 7)
    assert (found["training"]["max_epochs"], found["model"]["encoder"]) == (3, "frozen")
    assert (found["limits"]["quarantine_share"], found["strategy"]["cold_start"]) == (0.5, "random")
    assert found["data_prefixes"] == ["s3://bucket/data"]


def test_a_data_prefix_may_be_a_path(birds):
    birds.run("init", "other", "--classes", "a,b", "--data-prefix", "new")
    assert json.loads((birds.folder / "other/project.json").read_text())["data_prefixes"] == [birds.new.as_uri()]


@pytest.mark.parametrize("refer", [False, True])
def test_a_drop_registered_twice_has_no_effect_and_a_grown_one_adds_what_is_new(birds, refer):
    if refer:
        birds.configure(data_prefixes=[birds.new.as_uri()])
    birds.files("x.png", "y.jpeg")
    how = "referred to in place" if refer else "copied"
    assert birds.run("drop", "birds", "new").endswith(f": 2 samples {how}\n")
    before = birds.tree()
    assert birds.run("drop", "birds", "new") == "nothing new: all 2 samples are registered already\n"
    assert birds.tree() == before
    birds.files("z.webp")
    assert birds.run("drop", "birds", "new").endswith(f": 1 samples {how}, 2 known already\n")
    assert json.loads(birds.run("status", "birds", "--json"))["counts"]["samples"] == 3 + 3


def test_a_drop_is_told_to_programs_too(birds):
    birds.files("cat/x.png", "dog/y.png")
    done = json.loads(birds.run("drop", "birds", "new", "--labelled", "--name", "mine", "--test-share", 1, "--json"))
    assert done == {"name": "mine", "added": 2, "known": 0, "how": "copied"}
    assert json.loads(birds.run("status", "birds", "--json"))["counts"]["test"] == 2


def test_status_of_an_empty_project(birds):
    birds.run("init", "empty", "--classes", "a,b")
    said = birds.run("status", "empty")
    assert "0 samples: 0 in the pool, 0 queried, 0 labelled" in said
    found = json.loads(birds.run("status", "empty", "--json"))
    assert (found["rounds"], found["champion"]["round"], found["locked"]) == ([], None, "")


def test_status_says_how_many_samples_wait_outside_of_the_pool(birds):
    birds.put("drops/later/manifest.jsonl", {"uri": "x.png", "split": "test"})
    assert birds.run("status", "birds").endswith("0 quarantined, 1 held out without a label\n")


def test_a_plan_says_what_a_round_would_do_and_starts_nothing(birds):
    birds.put("labels/1.jsonl", answer_event("a", "cat"))
    before = birds.tree()
    plan = json.loads(birds.run("round", "birds", "--plan", "--json"))
    assert plan == {
        "round": 1,
        "decision": "plan",
        "because": "the first round",
        "samples": 3,
        "pool": 2,
        "labelled": 1,
        "open_queries": 0,
        "budget": 2,
        "strategy": "random",
        "shards": 1,
        "estimated_minutes": None,
    }
    said = birds.run("round", "birds", "--plan")
    assert "estimated minutes   unknown before the first round" in said
    assert birds.tree() == before


def answer_event(sample_id, label):
    return {
        "event_id": sample_id,
        "sample_id": sample_id,
        "kind": "label",
        "label": label,
        "annotator": "ann",
        "time": "2026-03-01T12:00:00Z",
    }


def test_too_many_open_queries_are_no_error_and_start_nothing(birds):
    birds.configure(queue={"max_open": 0})
    birds.ask(1, "b")
    before = birds.tree()
    assert birds.run("round", "birds") == "no round: 1 queries are open, more than queue.max_open 0\n"
    assert json.loads(birds.run("round", "birds", "--json")) == {
        "state": "idle",
        "text": "1 queries are open, more than queue.max_open 0",
    }
    assert birds.tree() == before


def test_questions_go_out_and_answers_come_back_by_csv(birds):
    birds.ask(1, "b", "a")
    assert birds.run("queue", "export", "birds", "out/round.csv") == "wrote 2 open questions to out/round.csv\n"
    with (birds.folder / "out/round.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["sample_id"], row["suggestion"], row["round"], row["label"]) for row in rows] == [
        ("b", "cat", "1", ""),
        ("a", "cat", "1", ""),
    ]
    (birds.folder / "answers.csv").write_text("sample_id,label\nb,dog\na,\n")
    assert birds.run("labels", "import", "birds", "answers.csv") == "imported 1 answers\n"
    before = birds.tree()
    assert birds.run("labels", "import", "birds", "answers.csv") == "no effect: answers.csv is imported already\n"
    assert birds.tree() == before
    assert [question["sample_id"] for question in json.loads(birds.run("queue", "list", "birds", "--json"))] == ["a"]
    assert "file:///a.png" in birds.run("queue", "list", "birds")


def test_a_withdrawn_or_unreadable_sample_holds_up_no_sheet(birds):
    birds.ask(1, "b", "a")
    birds.commit(2, quarantine=[Quarantined(sample_id="a", uri="file:///a.png", reason="empty")])
    (birds.folder / "ids.txt").write_text("b\n")
    birds.run("drop", "birds", "ids.txt", "--withdraw")
    (birds.folder / "answers.csv").write_text("sample_id,label\nb,dog\na,cat\n")
    message = "imported 1 answers, skipped 1 about withdrawn samples\n"
    assert birds.run("labels", "import", "birds", "answers.csv") == message
    assert birds.run("labels", "import", "birds", "answers.csv") == "no effect: answers.csv is imported already\n"
    (batch,) = (birds.project / "labels").glob("import-*.jsonl")
    assert [json.loads(line)["sample_id"] for line in batch.read_text().splitlines()] == ["a"]


def test_answers_that_say_nothing_write_nothing(birds):
    (birds.folder / "answers.csv").write_text("sample_id,label\nb,\n")
    before = birds.tree()
    assert birds.run("labels", "import", "birds", "answers.csv") == "imported 0 answers\n"
    assert birds.tree() == before


def test_a_name_with_brackets_is_printed_as_it_is(birds):
    (birds.folder / "[red]answers.csv").write_text("sample_id,label\nb,dog\n")
    birds.run("labels", "import", "birds", "[red]answers.csv")
    said = birds.run("labels", "import", "birds", "[red]answers.csv")
    assert said == "no effect: [red]answers.csv is imported already\n"


def test_unlocking_says_who_held_it(birds):
    assert birds.run("unlock", "birds") == "the project was not locked\n"
    birds.put(
        "lock.json",
        {"revision": 1, "fence": 4, "holder": {"run_id": "run-1"}, "until": "2999-01-01T00:00:00Z"},
    )
    assert "locked by run run-1 until 2999-01-01" in birds.run("status", "birds")
    assert birds.run("unlock", "birds") == "unlocked: run run-1 held it\n"
    assert json.loads((birds.project / "lock.json").read_text()) == {
        "revision": 4,
        "fence": 5,  # it took the lock for a moment, so that the run which had it can commit nothing
        "holder": None,
        "until": None,
    }


def test_a_project_may_be_named_by_path_or_uri(birds):
    uri = birds.project.as_uri()
    assert birds.run("status", uri) == birds.run("status", "birds") == birds.run("status", uri + "/")
