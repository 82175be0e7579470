"""Which model serves: decided once, applied as decided."""

from datetime import UTC, datetime

import pytest

from alfamix_core.project import champion, layout
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project, PromotionSettings
from alfamix_core.records.round import Counts, Promotion, Round

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
        (3, {}, {}, {}, True, False, "there are no test labels to compare the models on"),
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
        promoted=promoted, reason=reason, metrics=ours, champion_round=serving, champion_metrics=theirs
    )


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
    assert (newer.revision, newer.round) == (2, 3)
    assert champion.promote(place, 2, GOOD, 3) == newer
    assert champion.read(place)[0] == newer
