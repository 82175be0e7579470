"""Cron expressions: what they mean, when they come, and what is none."""

from datetime import UTC, datetime

import pytest

from alfamix_core.errors import InputError
from pipelines.services import cron

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 6 * * *", "at 06:00:00 UTC, every day"),
        ("0  30 6,18 ? * MON-FRI", "at 06:30:00 and 18:30:00 UTC, on Monday to Friday"),
        ("0 */15 * * * *", "at second 0 of minute 0 to 45 in steps of 15 of every hour UTC, every day"),
        ("0 0 0 1 1,7 ?", "at 00:00:00 UTC, on day 1 of the month in January and July"),
        ("0 0 0 1 * 0", "at 00:00:00 UTC, on day 1 of the month or on Sunday"),
        ("0 0 0 */2 * sun", "at 00:00:00 UTC, on day 1 to 31 in steps of 2 of the month if it is Sunday"),
        ("10/20 0 0 * * *", "at 00:00:10, 00:00:30 and 00:00:50 UTC, every day"),
    ],
)
def test_an_expression_is_said_in_words(text, words):
    assert cron.parse(text).words() == words


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0 0 6 * * *", ["2026-03-03 06:00:00", "2026-03-04 06:00:00", "2026-03-05 06:00:00"]),
        ("0 0 12 * * *", ["2026-03-03 12:00:00", "2026-03-04 12:00:00", "2026-03-05 12:00:00"]),
        ("0 0 12-14 * * MON", ["2026-03-02 13:00:00", "2026-03-02 14:00:00", "2026-03-09 12:00:00"]),
        ("0 0 0 29 2 *", ["2028-02-29 00:00:00"]),
        ("0 0 0 4 * 2", ["2026-03-03 00:00:00", "2026-03-04 00:00:00", "2026-03-10 00:00:00"]),
        ("0 0 0 1/2 * 2", ["2026-03-03 00:00:00", "2026-03-05 00:00:00", "2026-03-07 00:00:00"]),
        ("0 0 0 */2 * 2", ["2026-03-03 00:00:00", "2026-03-17 00:00:00", "2026-03-31 00:00:00"]),
    ],
)
def test_the_next_times_can_be_counted_on_a_calendar(text, times):
    """2 March 2026 is a Monday; a star, also with a step, makes the two kinds of days an and."""
    assert [f"{at:%Y-%m-%d %H:%M:%S}" for at in cron.parse(text).after(MONDAY, 3)] == times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 6 * * *", "must have 6 fields (second, minute, hour, day of the month, month, day of the week)"),
        ("@daily", "it has 1"),
        ("60 0 0 * * *", 'cron: second "60": must be 0 to 59, a range, a list, a step or *'),
        ("0 0 0 0 * *", 'cron: day of the month "0": must be 1 to 31'),
        ("0 0 0 * * 7", 'cron: day of the week "7": must be 0 to 6 or SUN, MON'),
        ("0 0 0 * FOO *", 'cron: month "FOO": must be 1 to 12 or JAN, FEB'),
        ("0 0 18-6 * * *", 'cron: hour "18-6": 18-6 ends before it begins'),
        ("0 */0 * * * *", 'cron: minute "*/0": a step must be a whole number from 1, not "0"'),
        ("0 1,,2 * * * *", 'cron: minute "1,,2": must be'),
        ("0 -5 * * * *", 'cron: minute "-5": must be'),
        ("0 ² * * * *", 'cron: minute "²": must be'),
        ("0 0 0 31 2 *", "such a day never comes"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text, message):
    with pytest.raises(InputError) as refused:
        cron.parse(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
