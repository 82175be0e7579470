"""Class balance, stage times and how numbers are said, by hand."""

import pytest

from alfamix_core.records.stage import StageRun
from alfamix_core.reports.balance import balance_in_words, class_balance
from alfamix_core.reports.page import duration, number, percent, points, size
from alfamix_core.reports.readings import reading_of
from alfamix_core.reports.timings import stage_times


def test_balance_counts_by_class_and_scales_to_the_largest():
    rows = class_balance(("a", "b", "c"), {"a": 10, "c": 5}, ["c", "c", "a", ""])
    assert [(r.name, r.labels, r.queries) for r in rows] == [("a", 10, 1), ("b", 0, 0), ("c", 5, 2)]
    assert [(r.labels_share, r.queries_share) for r in rows] == [(100, 50), (0, 0), (50, 100)]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"a": 0, "b": 0}, ""),
        ({}, ""),
        ({"a": 30, "b": 12}, "Most: a (30), fewest: b (12), a ratio of 2.5."),
        ({"a": 30, "b": 0, "c": 0}, "2 of 3 classes have no label; most: a (30)."),
        ({"a": 4, "b": 4}, "4 labels in each class."),
    ],
)
def test_balance_in_words(counts, words):
    assert balance_in_words(counts) == words


def test_shards_are_summed_and_the_slowest_is_kept():
    runs = [
        StageRun(stage="train", seconds=20),
        StageRun(stage="embed", shard="0", seconds=10, rows=5, peak_memory_bytes=7, device="b"),
        StageRun(stage="embed", shard="1", seconds=30, rows=6, peak_memory_bytes=9, device="a"),
    ]
    train, embed = stage_times(runs)
    assert (train.stage, train.seconds, train.share) == ("train", 20, 50)
    assert (embed.shards, embed.seconds, embed.slowest, embed.rows) == (2, 40, 30, 11)
    assert (embed.peak_memory_bytes, embed.device, embed.share, embed.slowest_share) == (9, "a, b", 100, 75)


def test_stages_of_no_time_at_all_have_bars_of_no_length():
    assert stage_times([StageRun(stage="ingest", seconds=0)])[0].share == 0
    assert stage_times([]) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7499, "2 h 05 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_numbers_as_people_read_them():
    assert [percent(0.8725), percent(None), points(0.031), points(-0.005)] == [
        "87.2%",
        "–",
        "+3.1 points",
        "−0.5 points",
    ]
    assert [number(12345), number(0.123456), number(3.0)] == ["12,345", "0.1235", "3"]
    assert [size(999), size(1500), size(2_500_000), size(2_500_000_000)] == ["999 B", "2 kB", "2 MB", "2.5 GB"]


def test_critical_cap_is_the_negative_of_the_score_and_zero_has_no_sign():
    reading = reading_of("alfamix")
    assert reading.of(-0.25) == 0.25
    assert str(reading.of(0.0)) == "0.0"
    assert reading_of("unknown").of(-3.0) == -3.0
