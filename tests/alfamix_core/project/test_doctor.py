"""What is wrong with a project, what to do, and what may be deleted."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import (
    champion,
    choice,
    cleaning,
    doctor,
    layout,
    lock,
    models,
    objects,
    planning,
    rounds,
)
from alfamix_core.records.query import Question
from alfamix_core.records.round import Failure, Outcome, Promotion
from alfamix_core.storage import open_store, path_of
from alfamix_core.storage.folder import FolderStore

DAY = timedelta(days=1)


def findings(made, now, **fields):
    return [(each.kind, each.key) for each in doctor.examine(made.store, now, **fields)]


@pytest.fixture
def campaign(made_anywhere, holder, noon):
    return campaign_of(made_anywhere, holder, noon)


def campaign_of(made, holder, noon):
    """Rounds 1 to 3, each promoted, with report and thumbnail; 1 and 2 are answered and closed, 3 is open."""
    made.drop("a", *"bcdefg")
    for number, key in enumerate("bcd", start=1):
        run = f"run-{number}"
        planning.begin(made.store, holder(run), noon, force=True)
        picture = objects.write(made.store, number, f"picture of {key}".encode())
        thumbnail = layout.objects(number) + picture
        question = Question(sample_id=key, uri="file:///x", round=number, rank=0, asked_at=noon, thumbnail=thumbnail)
        written = {
            "questions": objects.write_lines(made.store, number, [question]),
            "report": objects.write(made.store, number, f"page of {number}".encode()),
        }
        promotion = Promotion(
            promoted=True, reason="better", model=made.model(f"weights {number}"), metrics={"accuracy": number / 10}
        )
        outcome = Outcome(queries=1, strategy="random", exported_at=noon)
        record = rounds.mark_exported(made.store, number, run, outcome, noon, objects=written, promotion=promotion)
        champion.apply(made.store, record)
        lock.release(made.store, run)
        if number < 3:
            made.label(str(number), **{key: "cat"})
    return made


def test_a_healthy_project_has_no_finding(campaign, noon):
    assert doctor.examine(campaign.store, noon, deep=True) == []


def test_every_kind_of_finding_is_made(campaign, holder, noon):
    made, store = campaign, campaign.store
    store.create("drops/half/files/a.png", b"half")
    store.create("labels/bad.jsonl", b"{}\n")
    store.create("labels/worse.jsonl", b"?\n")
    store.create("notes/mine.txt", b"?")
    store.create("models/ab/model.json", b"")
    store.create("rounds/000008/queries.jsonl", b"")
    store.create("rounds/000001/run/left", b"")
    store.create("ledger/half/samples.parquet", b"")
    failure = Failure(stage="ingest", run_id="run-9", status=2, line="no good")
    store.create(layout.early_failure("run-9"), failure.document())
    serving = layout.model(champion.read(store)[0].model)
    store.delete(serving + "model.safetensors")
    lock.acquire(store, holder("dead"), noon, noon + DAY)
    found = doctor.examine(store, noon + 2 * DAY)
    assert [(each.kind, each.key) for each in found] == [
        ("inconsistent", serving),
        ("locked", "lock.json"),
        ("orphaned", "drops/half/"),
        ("orphaned", "failures/run-9.json"),
        ("orphaned", "ledger/half/"),
        ("orphaned", "notes/"),
        ("orphaned", "rounds/000001/run/"),
        ("orphaned", "rounds/000008/"),
        ("waiting", "labels/bad.jsonl"),
        ("waiting", "labels/worse.jsonl"),
    ]
    assert all(each.do for each in found)
    assert "no good" in found[3].what
    assert made.files().keys() >= {"notes/mine.txt"}


def test_an_unfinished_round_a_promotion_that_was_not_applied_and_a_waiting_one_are_found(made, holder, noon):
    made.drop("a", "b", "c")
    for number, fields in ((1, {"promoted": True}), (2, {"promoted": False, "waits": True})):
        run = f"run-{number}"
        planning.begin(made.store, holder(run), noon, force=True)
        promotion = Promotion(reason="", model=made.model(f"weights {number}"), metrics={}, **fields)
        outcome = Outcome(queries=0, strategy="random", exported_at=noon)
        rounds.mark_exported(made.store, number, run, outcome, noon, promotion=promotion)
        lock.release(made.store, run)
        if number == 1:
            assert findings(made, noon) == [("overdue", "rounds/000001/round.json")]
    planning.begin(made.store, holder("run-3"), noon, force=True)
    lock.release(made.store, "run-3")
    assert champion.read(made.store)[0].round == 1, "the next ingest applied it"
    assert findings(made, noon) == [
        ("overdue", "rounds/000003/round.json"),
        ("waiting", "rounds/000002/round.json"),
    ]


def test_a_champion_without_its_model_or_newer_than_the_rounds_is_found(made, holder, noon):
    """The next round would take the number of one that serves, and no rollback could tell them apart."""
    made.drop("a", "b", "c")
    planning.begin(made.store, holder("run-1"), noon, force=True)
    outcome = Outcome(queries=0, strategy="random", exported_at=noon)
    promotion = Promotion(reason="", model=made.model("weights"), metrics={}, promoted=True)
    rounds.mark_exported(made.store, 1, "run-1", outcome, noon, promotion=promotion)
    champion.apply(made.store, rounds.read(made.store, 1).value)
    lock.release(made.store, "run-1")
    assert "the champion's model is not complete" not in [each.what for each in doctor.examine(made.store, noon)]
    shutil.rmtree(path_of(made.store.uri) / "models")
    assert "the champion's model is not complete" in [each.what for each in doctor.examine(made.store, noon)]
    path_of(made.store.uri).joinpath("rounds/000001/round.json").unlink()
    line = "champion.json names round 1, and rounds/ has no round: put back both as of one moment"
    with pytest.raises(InputError, match=f"^{line}$"):
        planning.consider(made.store, noon, force=True)
    assert line in [finding.what for finding in doctor.examine(made.store, noon)]


def test_what_waits_for_people_is_counted(made, noon):
    made.drop("a", *"bcdefg")
    made.ask(1, "b", at=noon - 29 * DAY)
    made.label("1", x="cat")
    made.events(
        "2",
        *(
            made.event(name, "c", label, annotator=name)
            for name, label in zip("xyz", ("cat", "dog", "owl"), strict=True)
        ),
    )
    made.quarantine(1, "d")
    what = [each.what for each in doctor.examine(made.store, noon) if each.kind in ("overdue", "waiting")]
    assert what == [
        "1 of its questions expire within 3 days",
        "1 answers are about samples that no drop has delivered",
        "1 samples are disputed",
        "1 samples could not be read",
    ]


def test_a_folder_that_is_no_project_is_refused(place, noon):
    with pytest.raises(InputError, match="is not a project"):
        doctor.examine(place, noon)


def test_only_old_closed_rounds_lose_what_is_large_and_never_a_champion(campaign, noon):
    """Of rounds 1, 2 and the open 3: 3 serves, 2 is what a rollback goes to, 1 is nobody's."""
    store = campaign.store

    def large(number):
        record = rounds.read(store, number)[0]
        question = Question.parse(objects.read(store, record, "questions"), "question")
        return {objects.key_of(record, "report"), question.thumbnail}

    def model(number):
        folder = layout.model(rounds.read(store, number)[0].model)
        return {folder + name for name in models.FILES}

    def removable(keep_rounds):
        return {entry.key for entry in cleaning.removable(store, keep_rounds, noon)}

    assert removable(10) == removable(3) == set()
    assert removable(0) == large(1) | large(2) | model(1)
    assert removable(2) == large(1) | model(1)


def test_what_no_record_names_goes_after_a_day(campaign):
    """An export that was taken over left an object, an evaluation that was killed a model."""
    store = campaign.store
    orphan = layout.objects(1) + objects.write(store, 1, b"a stale report")
    model = layout.model(campaign.model("weights of nobody"))
    now = datetime.now(UTC)
    assert cleaning.removable(store, 10, now) == []
    removed = {entry.key for entry in cleaning.clean(store, 10, now + DAY + timedelta(minutes=1))}
    assert removed == {orphan, model + "model.json", model + "model.safetensors"}
    assert doctor.examine(store, now, deep=True) == []


class Visited(FolderStore):
    """A store whose first delete is watched by somebody who does something meanwhile."""

    visit = None

    def delete(self, key):
        visit, self.visit = self.visit, None
        if visit is not None:
            visit()
        super().delete(key)


def test_a_promotion_during_a_clean_is_refused_and_the_model_that_serves_stays(made, holder, noon):
    """A person chooses round 1's model while clean, which goes by what it has read, deletes that very model."""
    campaign_of(made, holder, noon)
    visited = Visited(path_of(made.store.uri))
    refused = []

    def promote():
        with pytest.raises(LockedError, match=r"^the project is locked by run clean-\w+ \(process") as error:
            choice.choose(open_store(made.store.uri), 1, "", noon)
        refused.append(str(error.value))

    visited.visit = promote
    cleaning.clean(visited, 0, noon)
    assert len(refused) == 1
    models.verify(made.store, champion.read(made.store)[0].model)
    with pytest.raises(InputError, match="keeps no model of round 1; it has those of rounds 2, 3"):
        choice.choose(made.store, 1, "", noon)


def test_a_clean_that_slept_past_its_deadline_deletes_nothing_more(made, holder, noon):
    campaign_of(made, holder, noon)
    visited = Visited(path_of(made.store.uri))
    before = {entry.key for entry in made.store.list()}
    visited.visit = lambda: lock.unlock(made.store)
    with pytest.raises(LockedError, match="no longer holds the project"):
        cleaning.clean(visited, 0, noon)
    assert len(before - {entry.key for entry in made.store.list()}) == 1


def test_cleaning_twice_is_harmless_and_leaves_a_healthy_project_with_all_its_labels(campaign, noon):
    store, before = campaign.store, campaign.ledger().counts()
    store.create("failures/run-9.json", b"{}")
    entries = cleaning.removable(store, 0, noon)
    assert "failures/run-9.json" in {entry.key for entry in entries}
    assert cleaning.clean(store, 0, noon) == entries
    assert cleaning.clean(store, 0, noon) == []
    assert doctor.examine(store, noon) == []
    assert campaign.ledger().counts() == before
    assert choice.choose(store, None, "", noon, "rollback").round == 2
