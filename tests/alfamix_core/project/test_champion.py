"""Which model serves: proposed by a round, committed with it, and never in place of what a person chose meanwhile."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import champion, doctor, layout, lock, models, rounds
from alfamix_core.project.choice import choose
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project, PromotionSettings
from alfamix_core.records.round import Counts, ManualDecision, Outcome, Promotion, Round
from alfamix_core.storage import path_of

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD, BETTER = {"accuracy": 0.5, "macro_f1": 0.9}, {"accuracy": 0.6, "macro_f1": 0.8}


def round_with(serving=None, **settings):
    return Round(
        number=4,
        revision=1,
        fence=1,
        run_id="run",
        state="planned",
        planned_at=datetime(2026, 3, 1, tzinfo=UTC),
        seed=1,
        versions={},
        settings=Project(name="birds", classes=("cat", "dog"), promotion=PromotionSettings(**settings)),
        champion=Champion(round=serving),
        counts=Counts(),
        shards=1,
        digest="0" * 64,
    )


@pytest.mark.parametrize(
    ("serving", "settings", "ours", "theirs", "trained", "promoted", "reason"),
    [
        (None, {}, {}, {}, False, False, "the model is untrained: fewer than two classes have a label"),
        (3, {}, BETTER, GOOD, False, False, "the model is untrained: fewer than two classes have a label"),
        (None, {}, {}, {}, True, True, "the first trained model"),
        (None, {}, GOOD, {}, True, True, "the first trained model"),
        (3, {}, {}, {}, True, False, "there are no test labels to compare the models on; `alfamix promote` decides"),
        (
            *(3, {"metric": "expected_calibration_error", "min_gain": 0.05}, {"expected_calibration_error": 0.1}),
            *({"expected_calibration_error": 0.2}, True, True),
            "expected_calibration_error 0.1000 against 0.2000 of round 3: a gain of +0.1000, at least the required "
            "0.05",
        ),
        (
            *(3, {}, BETTER, GOOD, True, True),
            "accuracy 0.6000 against 0.5000 of round 3: a gain of +0.1000, at least the required 0",
        ),
        (
            *(3, {}, GOOD, BETTER, True, False),
            "accuracy 0.5000 against 0.6000 of round 3: a gain of -0.1000, less than the required 0",
        ),
        (
            *(3, {}, GOOD, GOOD, True, True),
            "accuracy 0.5000 against 0.5000 of round 3: a gain of +0.0000, at least the required 0",
        ),
        (
            *(3, {"min_gain": 0.2}, BETTER, GOOD, True, False),
            "accuracy 0.6000 against 0.5000 of round 3: a gain of +0.1000, less than the required 0.2",
        ),
        (
            *(3, {"min_gain": -0.5}, GOOD, BETTER, True, True),
            "accuracy 0.5000 against 0.6000 of round 3: a gain of -0.1000, at least the required -0.5",
        ),
        (
            *(3, {"metric": "macro_f1"}, BETTER, GOOD, True, False),
            "macro_f1 0.8000 against 0.9000 of round 3: a gain of -0.1000, less than the required 0",
        ),
    ],
)
def test_the_decision_by_hand(serving, settings, ours, theirs, trained, promoted, reason):
    found = champion.decide(round_with(serving, **settings), ours, theirs, "ab" if trained else "")
    assert found == Promotion(
        promoted=promoted,
        reason=reason,
        model="ab" if trained else "",
        metrics=ours,
        champion_round=serving,
        champion_metrics=theirs,
        waits="alfamix promote" in reason,
    )


@pytest.mark.parametrize(
    ("limit", "metric", "promoted", "words"),
    [
        (0.1, "accuracy", True, "at least the required 0"),
        (0.05, "accuracy", False, "the recall of dog falls by 0.1000, from 0.9000 to 0.8000, more than the 0.05"),
        (1.0, "recall.dog", False, "recall.dog 0.8000 against 0.9000 of round 3: a gain of -0.1000, less than"),
        (0.05, "recall.cat", False, "recall.cat 0.6000 against 0.5000 of round 3"),
        (1.0, "recall.cat", True, "recall.cat 0.6000 against 0.5000 of round 3"),
    ],
)
def test_no_class_may_fall_by_more_than_the_limit(limit, metric, promoted, words):
    found = champion.decide(
        round_with(3, max_class_fall=limit, metric=metric),
        BETTER,
        GOOD,
        "ab",
        recalls={"cat": 0.6, "dog": 0.8},
        champion_recalls={"cat": 0.5, "dog": 0.9 - 1e-15},
        split="audit",
    )
    assert found.promoted is promoted
    assert words in found.reason
    assert (found.split, found.recalls["cat"], found.champion_recalls["cat"]) == ("audit", 0.6, 0.5)


def test_a_metric_that_no_round_reports_is_refused():
    with pytest.raises(ValidationError, match=r'promotion.metric "recall.owl" is not reported; known are accuracy'):
        round_with(3, metric="recall.owl")


def trained(made, number, promoted=True, metrics=GOOD, seen=None, **fields):
    """Commit a round with a model of its own; return its record.

    Args:
        made: the project.
        number: of the round.
        promoted: whether its model passed the gate.
        metrics: of its model.
        seen: the champion that it froze; the one of now by default.
        fields: more of its promotion.
    """
    model = made.model(f"weights {number}")
    promotion = Promotion(promoted=promoted, reason="?", model=model, metrics=metrics, **fields)
    outcome = Outcome(queries=0, strategy="random", metrics=metrics, exported_at=NOON)
    record, tag = made.commit(number), made.store.read(layout.round_file(number)).tag
    frozen = seen or champion.read(made.store)[0]
    more = {"model": model, "promotion": promotion, "outcome": outcome, "champion": frozen, "revision": 2}
    made.store.swap(layout.round_file(number), (record := record.model_copy(update=more)).document(), tag)
    return record


@pytest.fixture
def kept(made_anywhere):
    """A project that keeps the models of rounds 1, 2 and 3; those of 1 and 3 were promoted."""
    for number, metrics in ((1, GOOD), (2, GOOD), (3, BETTER)):
        champion.apply(made_anywhere.store, trained(made_anywhere, number, number != 2, metrics))
    return made_anywhere


def serving(made):
    found, _ = champion.read(made.store)
    return found.round, found.before


def test_a_person_goes_back_and_forth_and_every_decision_is_kept_with_its_numbers(kept):
    assert serving(kept) == (3, (1,))
    back = choose(kept.store, None, "it is blind at night", NOON, "rollback")
    assert serving(kept) == (1, ())
    forth = choose(kept.store, 2, "", NOON)
    assert serving(kept) == (2, (1,))
    assert [ManualDecision.parse(kept.store.read(layout.decision(n)).data, "") for n in (3, 4)] == [back, forth]
    assert (back.round, back.champion_round, back.champion_metrics, back.reason) == (
        1,
        3,
        BETTER,
        "it is blind at night",
    )
    current = champion.read(kept.store)[0]
    assert (current.revision, current.model) == (4, forth.model) == (4, rounds.read(kept.store, 2)[0].model)


def test_a_choice_that_cannot_be_made_changes_nothing(kept, place):
    def visible():
        return {key: data for key, data in kept.files().items() if key != layout.LOCK}

    before = visible()
    with pytest.raises(InputError, match="the project keeps no model of round 9; it has those of rounds 1, 2, 3"):
        choose(kept.store, 9, "", NOON)
    with pytest.raises(InputError, match="the model of round 3 is the champion already"):
        choose(kept.store, 3, "", NOON)
    with pytest.raises(InputError, match="there is no earlier champion to go back to"):
        choose(place, None, "", NOON, "rollback")
    assert visible() == before


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_a_changed_model_is_refused_in_one_line(kept, file, tmp_path):
    digest = rounds.read(kept.store, 2)[0].model
    key = layout.model(digest) + file
    kept.store.delete(key)
    kept.store.create(key, b"other bytes")
    with pytest.raises(InputError, match=f"^models/{digest}/ was changed: its bytes are not those of its digest; "):
        choose(kept.store, 2, "", NOON)
    with pytest.raises(InputError, match=f"^models/{digest}/ was changed"):
        models.fetch(kept.store, digest, tmp_path)
    with pytest.raises(InputError, match=f"{file} is not what its folder's name says; delete it"):
        kept.model("weights 2")
    assert serving(kept) == (3, (1,))
    found = [(each.kind, each.key) for each in doctor.examine(kept.store, NOON, deep=True)]
    assert found == [("inconsistent", f"models/{digest}/")]


def test_the_digest_of_a_model_is_what_sha256sum_prints(made):
    digest = made.model("weights")
    command = "sha256sum model.json model.safetensors | sha256sum"
    place = path_of(made.store.uri_of("models/" + digest))
    assert subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True).stdout.split()[0] == digest


def test_while_a_run_holds_the_project_nobody_chooses(kept, holder):
    lock.acquire(kept.store, holder("run-9"), NOON, NOON + HOUR)
    with pytest.raises(LockedError, match=r"^the project is locked by run run-9 until"):
        choose(kept.store, None, "", NOON, "rollback")
    assert serving(kept) == (3, (1,))


def test_a_choice_whose_process_was_killed_is_applied_by_the_next(kept):
    model = rounds.read(kept.store, 2)[0].model
    recorded = ManualDecision(revision=3, kind="promote", round=2, model=model, time=NOON)
    kept.store.create(layout.decision(3), recorded.document())
    champion.apply(kept.store, trained(kept, 4))
    assert serving(kept) == (3, (1,)), "no promotion takes the place of a decision that is recorded"
    choose(kept.store, 1, "", NOON)
    assert serving(kept) == (1, ())
    assert ManualDecision.parse(kept.store.read(layout.decision(4)).data, "").champion_round == 2


def test_before_the_first_promotion_nobody_serves(place):
    assert champion.read(place) == (Champion(), "")


def test_a_promotion_counts_once_its_round_is_committed_and_repeating_it_changes_nothing(made_anywhere):
    made = made_anywhere
    record = trained(made, 1)
    champion.apply(made.store, record.model_copy(update={"state": "planned"}))
    assert serving(made) == (None, ())
    for _ in range(2):
        champion.apply(made.store, record)
        assert champion.read(made.store)[0] == Champion(revision=1, fence=1, round=1, model=record.model, metrics=GOOD)


def test_a_champion_that_a_person_chose_while_a_round_ran_stays_and_the_round_waits_for_a_person(kept):
    seen, _ = champion.read(kept.store)
    choose(kept.store, None, "", NOON, "rollback")
    record = trained(kept, 4, seen=seen)
    champion.apply(kept.store, record)
    assert serving(kept) == (1, ())
    said = "the model of round 4 passed the gate, but another champion was chosen while it ran"
    assert champion.waits(champion.read(kept.store)[0], record) == said
    (finding,) = doctor.examine(kept.store, NOON)
    assert (finding.kind, finding.what) == ("waiting", said)
    assert finding.do == "alfamix promote --round 4, or leave it"
    choose(kept.store, 4, "", NOON)
    assert serving(kept) == (4, (1,))
    assert doctor.examine(kept.store, NOON) == []


def test_after_a_rollback_the_round_that_was_left_does_not_come_back_but_a_newer_one_may(kept):
    left = rounds.read(kept.store, 3)[0]
    choose(kept.store, None, "", NOON, "rollback")
    champion.apply(kept.store, left)
    assert (serving(kept), champion.waits(champion.read(kept.store)[0], left)) == ((1, ()), "")
    champion.apply(kept.store, trained(kept, 4))
    assert serving(kept) == (4, (1,))


def test_an_old_round_does_not_come_back(kept):
    before = champion.read(kept.store)
    for number in (1, 2, 3):
        champion.apply(kept.store, rounds.read(kept.store, number)[0])
    assert champion.read(kept.store) == before
