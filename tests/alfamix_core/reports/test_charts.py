"""Where marks go, by hand."""

import pytest

from alfamix_core.reports.charts import MAP_SIDE, MapPoint, histogram, learning_curve, map_marks, ticks
from alfamix_core.reports.curve import CurvePoint


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.57, 0.99, [0.6, 0.7, 0.8, 0.9]),
        (18, 390, [100, 200, 300]),
        (-3, 3, [-2, 0, 2]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_better_is_higher_and_more_labels_are_further_right():
    chart = learning_curve({"a": [CurvePoint(2, 200, 0.9), CurvePoint(1, 100, 0.5)]}, here=2)
    first, second = chart.lines[0].marks
    assert first.x < second.x
    assert first.y > second.y
    assert (first.here, second.here) == (False, True)
    assert second.tip == "round 2: 90.0% with 200 labels"


def test_every_mark_stays_inside_and_accuracy_1_has_a_place():
    chart = learning_curve({"a": [CurvePoint(1, 10, 0.0), CurvePoint(2, 20, 1.0)]})
    assert all(0 <= mark.x <= 100 and 0 <= mark.y <= 100 for mark in chart.lines[0].marks)
    assert [tick.text for tick in chart.y_ticks][-1] == "100%"


def test_single_point_has_axes():
    chart = learning_curve({"a": [CurvePoint(1, 40, 0.75)]})
    assert [tick.text for tick in chart.x_ticks] == ["40"]
    assert chart.y_ticks


def test_round_without_accuracy_is_left_out_and_none_at_all_is_no_chart():
    assert len(learning_curve({"a": [CurvePoint(1, 1), CurvePoint(2, 2, 0.5)]}).lines[0].marks) == 1
    assert learning_curve({"a": [CurvePoint(1, 1)]}) is None
    assert learning_curve({}) is None


def test_series_differ_in_more_than_colour():
    chart = learning_curve({name: [CurvePoint(1, 1, 0.5), CurvePoint(2, 2, 0.6)] for name in "abcdef"})
    assert len({line.shape for line in chart.lines}) == len({line.dash for line in chart.lines}) == 6


def test_histogram_counts_every_value_once():
    chart = histogram([0.0] * 3 + [1.0] * 5, [1.0], "critical cap", cut=0.5)
    assert "3 candidates, 0 asked" in chart.bars[0].tip
    assert "5 candidates, 1 asked" in chart.bars[-1].tip
    assert chart.cut.at == 50
    assert chart.beyond == 0


def test_long_tail_is_counted_beside_the_axis():
    """1,000 values from 0 to 1 and one of a million: the axis ends near 1."""
    chart = histogram([i / 1000 for i in range(1000)] + [1e6], [], "score")
    assert chart.beyond == 20
    assert float(chart.x_ticks[-1].text) <= 1


@pytest.mark.parametrize("value", [0.0, 0.3, 1e9, -7.0])
def test_equal_values_make_one_bar(value):
    chart = histogram([value] * 50, [value], "score")
    assert [bar.height > 0 for bar in chart.bars].count(True) == 1


def test_histogram_of_nothing_is_none():
    assert histogram([], [], "score") is None


def test_map_has_one_scale_and_y_grows_upwards():
    """Twice as wide as high: x spans 94 % of the square, y half of that, about the middle."""
    marks = map_marks(
        [MapPoint("a", "queried", 0, 0), MapPoint("b", "pool", 20, 10), MapPoint("c", "labelled", 10, 5)],
    )
    assert [(m.point.sample_id, m.x, m.y) for m in marks] == [("b", 970, 265), ("c", 500, 500), ("a", 30, 735)]


def test_map_of_one_place_is_its_middle():
    marks = map_marks([MapPoint("a", "pool", 4, 4), MapPoint("b", "pool", 4, 4)])
    assert {(mark.x, mark.y) for mark in marks} == {(MAP_SIDE / 2, MAP_SIDE / 2)}
