"""Cron expressions: what they mean, when they come, what is refused, and a twin that reads as Kubeflow does."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from pipelines.services import cron

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 6 * * *", "At 06:00 (UTC)"),
        ("0  30 6,18 ? * MON-FRI", "At 06:30 and 18:30, Monday through Friday (UTC)"),
        ("0 */15 * * * *", "Every 15 minutes (UTC)"),
        ("0 0 0 1 1,7 ?", "At 00:00, on day 1 of the month, only in January and July (UTC)"),
        ("0 0 0 1 * 0", "At 00:00, on day 1 of the month, or on Sunday (UTC)"),
        ("0 0 0 */2 * sun", "At 00:00, every 2 days, only on Sunday (UTC)"),
        ("5 0 0 5-5 * ?/3", "At 00:00:05, on day 5 of the month, every 3 days of the week (UTC)"),
    ],
)
def test_an_expression_is_described(text, words):
    assert cron.parse(text).words() == words


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0 0 6 * * *", ["2026-03-03 06:00:00", "2026-03-04 06:00:00", "2026-03-05 06:00:00"]),
        ("0 0 12 * * *", ["2026-03-03 12:00:00", "2026-03-04 12:00:00", "2026-03-05 12:00:00"]),
        ("0 0 12-14 * * MON", ["2026-03-02 13:00:00", "2026-03-02 14:00:00", "2026-03-09 12:00:00"]),
        ("0 0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00", "2036-02-29 00:00:00"]),
        ("0 0 0 4 * 2", ["2026-03-03 00:00:00", "2026-03-04 00:00:00", "2026-03-10 00:00:00"]),
        ("0 0 0 1/2 * 2", ["2026-03-03 00:00:00", "2026-03-05 00:00:00", "2026-03-07 00:00:00"]),
        ("0 0 0 */2 * 2", ["2026-03-03 00:00:00", "2026-03-17 00:00:00", "2026-03-31 00:00:00"]),
        ("0 0 0 1-31 * 2", ["2026-03-03 00:00:00", "2026-03-04 00:00:00", "2026-03-05 00:00:00"]),
        ("0 0 0 5-5 * *", ["2026-03-05 00:00:00", "2026-04-05 00:00:00", "2026-05-05 00:00:00"]),
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
        ("0 0 0 L * *", 'cron: day of the month "L": must be'),
        ("0 0 0 * * 1#2", 'cron: day of the week "1#2": must be'),
        ("0 0 0 * * FRI-MON", "FRI-MON ends before it begins"),
        ("H 0 0 * * *", 'cron: second "H": must be'),
        ("0 0 0 * * MON/TUE", 'a step must be a whole number from 1, not "TUE"'),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text, message):
    with pytest.raises(InputError) as refused:
        cron.parse(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


# the twin: github.com/robfig/cron 1.2, which Kubeflow's controller uses


BOUNDS = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
NAMES = [
    {},
    {},
    {},
    {},
    dict(zip(cron._MONTHS, range(1, 13), strict=True)),
    dict(zip(cron._DAYS, range(7), strict=True)),
]


def values(word, names, low, high):
    """Return the values of a field, and whether it counts as a star."""
    found, star = set(), False
    for part in word.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span in ("*", "?"):
            begin, end, star = low, high, True
        else:
            begin = names[first] if first in names else int(first)
            end = begin if not dash else names[last] if last in names else int(last)
            if slash and not dash:
                end = high
        assert begin <= end
        found |= set(range(begin, end + 1, int(step) if slash else 1))
    return found, star


def twin(text, moment, count):
    """Look at every day, and at every time of a day that fits."""
    fields = [values(word, *each) for word, *each in zip(text.split(), NAMES, *zip(*BOUNDS, strict=True), strict=True)]
    (seconds, _), (minutes, _), (hours, _), (days, day_star), (months, _), (weekdays, weekday_star) = fields
    times = []
    day = moment.replace(hour=0, minute=0, second=0)
    last = moment
    while day.year <= last.year + 5:
        fits = [day.day in days, day.isoweekday() % 7 in weekdays]
        if day.month in months and (all(fits) if day_star or weekday_star else any(fits)):
            for hour, minute, second in product(sorted(hours), sorted(minutes), sorted(seconds)):
                at = day.replace(hour=hour, minute=minute, second=second)
                if at > moment:
                    times.append(at)
                    last = at
                if len(times) == count:
                    return times
        day += timedelta(days=1)
    return times


def words(names, bounds):
    low, high = bounds
    value = st.integers(low, high).map(str)
    if names:
        value |= st.sampled_from(sorted(names))
    spans = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: "{}-{}".format(*sorted(pair)))
    part = st.builds(
        lambda span, step: span + step,
        st.sampled_from("*?") | value | spans,
        st.just("") | st.integers(1, high + 2).map("/{}".format),
    )
    return st.sampled_from("*?") | st.lists(part, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.tuples(*(words(*each) for each in zip(NAMES, BOUNDS, strict=True))).map(" ".join)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))


@settings(deadline=None, max_examples=100)
@given(EXPRESSIONS, MOMENTS)
def test_times_are_those_of_a_twin_that_looks_at_every_day(text, moment):
    if not twin(text, datetime.now(UTC).replace(microsecond=0), 1):
        with pytest.raises(InputError, match="never comes"):
            cron.parse(text)
        return
    expression = cron.parse(text)
    assert expression.after(moment, 4) == twin(text, moment, 4)
    assert expression.words().endswith(" (UTC)")
