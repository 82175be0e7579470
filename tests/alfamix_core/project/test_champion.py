"""Which model serves: decided once, applied as decided."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from alfamix_core.errors import InputError
from alfamix_core.project import champion, layout
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project, PromotionSettings
from alfamix_core.records.round import Counts, ManualDecision, Promotion, Round

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
        inputs=(),
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
            "expected_calibration_error 0.1000 against 0.2000 of round 3: a gain of +0.1000, at least the 0.05 that is "
            "asked",
        ),
        (
            *(3, {}, BETTER, GOOD, True, True),
            "accuracy 0.6000 against 0.5000 of round 3: a gain of +0.1000, at least the 0 that is asked",
        ),
        (
            *(3, {}, GOOD, BETTER, True, False),
            "accuracy 0.5000 against 0.6000 of round 3: a gain of -0.1000, less than the 0 that is asked",
        ),
        (
            *(3, {}, GOOD, GOOD, True, True),
            "accuracy 0.5000 against 0.5000 of round 3: a gain of +0.0000, at least the 0 that is asked",
        ),
        (
            *(3, {"min_gain": 0.2}, BETTER, GOOD, True, False),
            "accuracy 0.6000 against 0.5000 of round 3: a gain of +0.1000, less than the 0.2 that is asked",
        ),
        (
            *(3, {"min_gain": -0.5}, GOOD, BETTER, True, True),
            "accuracy 0.5000 against 0.6000 of round 3: a gain of -0.1000, at least the -0.5 that is asked",
        ),
        (
            *(3, {"metric": "macro_f1"}, BETTER, GOOD, True, False),
            "macro_f1 0.8000 against 0.9000 of round 3: a gain of -0.1000, less than the 0 that is asked",
        ),
    ],
)
def test_the_decision_by_hand(serving, settings, ours, theirs, trained, promoted, reason):
    found = champion.decide(round_with(serving, **settings), ours, theirs, trained)
    assert found == Promotion(
        promoted=promoted,
        reason=reason,
        metrics=ours,
        champion_round=serving,
        champion_metrics=theirs,
        waits="alfamix promote" in reason,
    )


@pytest.mark.parametrize(
    ("limit", "metric", "promoted", "words"),
    [
        (0.1, "accuracy", True, "at least the 0 that is asked"),
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
        True,
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


@pytest.fixture
def kept(store):
    """A project that keeps the models of rounds 1, 2 and 3; those of 1 and 3 were promoted."""
    for number in (1, 2, 3):
        store.create(layout.model(number) + "model.json", b"card")
    champion.promote(store, 1, GOOD, 1)
    champion.promote(store, 3, BETTER, 2)
    return store


def serving(store):
    found, _ = champion.read(store)
    return found.round, found.before


def test_a_person_goes_back_and_forth_and_every_decision_is_kept_with_its_numbers(kept):
    assert serving(kept) == (3, (1,))
    back = champion.choose(kept, None, "it is blind at night", NOON, "rollback")
    assert serving(kept) == (1, ())
    forth = champion.choose(kept, 2, "", NOON)
    assert serving(kept) == (2, (1,))
    assert [ManualDecision.parse(kept.read(layout.decision(n)).data, "") for n in (3, 4)] == [back, forth]
    assert (back.round, back.champion_round, back.champion_metrics, back.reason) == (
        1,
        3,
        BETTER,
        "it is blind at night",
    )
    assert champion.read(kept)[0].revision == 4


def test_after_a_rollback_the_round_that_was_left_does_not_come_back_but_a_newer_one_may(kept):
    champion.choose(kept, None, "", NOON, "rollback")
    assert champion.promote(kept, 3, BETTER, 9).round == 1
    assert champion.promote(kept, 4, BETTER, 9).round == 4
    assert serving(kept) == (4, (1,))


def test_a_choice_that_cannot_be_made_changes_nothing(kept, place):
    before = [(e.key, kept.read(e.key)) for e in kept.list()]
    with pytest.raises(InputError, match="the project keeps no model of round 9; it has those of rounds 1, 2, 3"):
        champion.choose(kept, 9, "", NOON)
    with pytest.raises(InputError, match="the model of round 3 is the champion already"):
        champion.choose(kept, 3, "", NOON)
    with pytest.raises(InputError, match="there is no earlier champion to go back to"):
        champion.choose(place, None, "", NOON, "rollback")
    assert [(e.key, kept.read(e.key)) for e in kept.list()] == before


def test_a_choice_whose_process_was_killed_is_applied_by_the_next(kept):
    made = ManualDecision(revision=3, kind="promote", round=2, time=NOON)
    kept.create(layout.decision(3), made.document())
    champion.choose(kept, 1, "", NOON)
    assert serving(kept) == (1, ())
    assert ManualDecision.parse(kept.read(layout.decision(4)).data, "").champion_round == 2


def test_before_the_first_promotion_nobody_serves(place):
    assert champion.read(place) == (Champion(), None)


def test_the_decision_that_was_recorded_first_stands(place):
    first = Promotion(promoted=True, reason="the first trained model", metrics=GOOD)
    other = Promotion(promoted=False, reason="of a resumed run", metrics=BETTER)
    assert champion.record_decision(place, 4, first) == first
    assert champion.record_decision(place, 4, other) == first
    assert Promotion.parse(place.read(layout.promotion(4)).data, "") == first


def test_a_resumed_run_applies_the_decision_that_its_forerunner_recorded(store):
    """Killed between promotion.json and champion.json: the next run's own judgement does not count."""
    champion.record_decision(store, 1, Promotion(promoted=True, reason="first", metrics=GOOD))
    stands = champion.record_decision(store, 1, Promotion(promoted=False, reason="second", metrics={}))
    assert stands.promoted
    assert champion.promote(store, 1, stands.metrics, 2) == Champion(revision=1, fence=2, round=1, metrics=GOOD)
    again = champion.promote(store, 1, stands.metrics, 3)
    assert again == champion.read(store)[0] == Champion(revision=1, fence=2, round=1, metrics=GOOD)


def test_each_promotion_raises_the_revision_and_an_old_round_does_not_come_back(place):
    assert champion.promote(place, 1, GOOD, 1).revision == 1
    newer = champion.promote(place, 3, BETTER, 2)
    assert (newer.revision, newer.round, newer.before) == (2, 3, (1,))
    assert champion.promote(place, 2, GOOD, 3) == newer
    assert champion.read(place)[0] == newer
