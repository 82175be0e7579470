"""When another round is not worth it: by hand."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.project import stopping
from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project
from alfamix_core.records.round import Counts, Outcome, Round

NOON = datetime(2026, 3, 1, tzinfo=UTC)


def project(**fields):
    return Project(name="birds", classes=("cat", "dog"), budget=100, **fields)


def rounds(*accuracies, agreement=None, metric="accuracy", where="metrics"):
    """Rounds of 100, 200 … labels."""
    return [
        Round(
            number=number,
            revision=1,
            fence=1,
            run_id="run",
            state="closed",
            planned_at=NOON,
            seed=1,
            versions={},
            settings=project(),
            champion=Champion(),
            counts=Counts(train=100 * number),
            shards=1,
            digest="0" * 64,
            outcome=Outcome(
                queries=1,
                strategy="random",
                exported_at=NOON,
                agreement=agreement,
                **{where: {} if accuracy is None else {metric: accuracy}},
            ),
        )
        for number, accuracy in enumerate(accuracies, start=1)
    ]


FULL = Counts(train=500, pool=1000)


def test_a_metric_that_still_grows_is_worth_a_round():
    advice = stopping.advise(project(), rounds(0.5, 0.6, 0.7, 0.8, agreement=0.9), FULL)
    assert (advice.worth_it, advice.text, advice.unknown) == (True, "", ())


def test_a_plateau_over_three_rounds_is_not_worth_another():
    advice = stopping.advise(project(), rounds(0.5, 0.8, 0.7, 0.9, 0.801), FULL)
    assert advice.reasons == (
        "accuracy went from 0.8000 to 0.8010 over 3 rounds, a gain of +0.0010, less than stop.plateau_gain 0.002",
    )


def test_of_a_metric_where_less_is_better_a_fall_is_a_gain():
    metric = "expected_calibration_error"
    settings = project(promotion={"metric": metric})
    assert stopping.advise(settings, rounds(0.4, 0.3, 0.2, 0.1, metric=metric), FULL).worth_it
    assert not stopping.advise(settings, rounds(0.1, 0.2, 0.3, 0.4, metric=metric), FULL).worth_it


def test_audit_labels_are_used_where_there_are_no_test_labels():
    assert not stopping.advise(project(), rounds(0.8, 0.8, 0.8, 0.8, where="audit"), FULL).worth_it


def test_what_is_missing_for_a_judgement_is_said():
    advice = stopping.advise(project(), rounds(0.5, None), FULL)
    assert advice.worth_it
    assert advice.unknown == (
        "plateau: 4 rounds that measured accuracy are needed, there are 1",
        "agreement: the last round compared its model with no earlier one; test or audit labels are needed",
    )
    assert advice.forecast is None


def test_two_models_that_say_the_same_an_empty_pool_and_a_spent_budget_are_reasons():
    advice = stopping.advise(project(), rounds(0.5, agreement=0.995), Counts(train=100), "all 100 labels are spent")
    assert advice.text == (
        "another round is not worth it: all 100 labels are spent; no sample is left that could be asked; the last two "
        "models say the same about 99.50% of the test samples, and differ about less than stop.min_change 0.01"
    )


def test_before_the_first_round_nothing_speaks_against_it():
    assert stopping.advise(project(), [], Counts()).worth_it


def test_the_forecast_by_hand():
    """Missing 1, 0.1, 0.01 with 1, 10, 100 labels: with 1,000 it is 0.001, without error."""
    found = stopping.forecast([(1, 0.0), (10, 0.9), (100, 0.99)], "accuracy", 1000)
    assert found.value == pytest.approx(0.999)
    assert found.error == pytest.approx(0, abs=1e-7)
    # ln missing 0, -1, 0 at -1, 0, 1: mean -1/3, slope 0, RSS 2/3, s² 2/3; at 2: sqrt(2/3 * (1 + 1/3 + 4/2))
    found = stopping.forecast([(1, 0.0), (10, 1 - math.exp(-1)), (100, 0.0)], "accuracy", 1000)
    assert found.value == pytest.approx(1 - math.exp(-1 / 3))
    assert found.error == pytest.approx(math.sqrt(2 / 3 * (1 + 1 / 3 + 2)) * math.exp(-1 / 3))
    assert "may reach accuracy 0.2835 ± " in found.text


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1)), max_size=10), st.integers(1, 10**6))
def test_a_forecast_is_finite_or_none(points, labels):
    found = stopping.forecast(points, "accuracy", labels)
    assert found is None or (0 <= found.value <= 1 and math.isfinite(found.error) and found.error >= 0)
