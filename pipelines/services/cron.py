"""Cron expressions of six fields, seconds first, as Kubeflow reads them: parsed, described and evaluated.

croniter computes the times and cron-descriptor describes them. This file holds what Kubeflow's reader,
github.com/robfig/cron 1.2, does differently: it knows no 7 for Sunday, no range that ends before it begins and none of
croniter's letters; ``?`` is another ``*``; and if both a day of the month and a day of the week are named, either is
enough, unless one of them has a ``*`` or ``?`` in it, also with a step: then both must fit.
"""

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from cron_descriptor import DescriptionTypeEnum, ExpressionDescriptor, Options
from croniter import CroniterBadDateError, croniter

from alfamix_core.errors import InputError

_MONTHS = tuple("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split())
_DAYS = tuple("SUN MON TUE WED THU FRI SAT".split())
_FIELDS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "second": (0, 59, ()),
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day of the month": (1, 31, ()),
    "month": (1, 12, _MONTHS),
    "day of the week": (0, 6, _DAYS),
}
_PART = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\w+))?", re.ASCII)
_YEARS = 5  # a time that does not come within them never comes, for Kubeflow too


@dataclass(frozen=True)
class Cron:
    """A checked expression.

    Attributes:
        text: Expression as it was written, with single spaces.
        fields: Its fields, in the words that croniter and cron-descriptor read as Kubeflow reads the text.
        either: Whether a day of the month or a day of the week is enough.
    """

    text: str
    fields: tuple[str, ...]
    either: bool

    def words(self) -> str:
        """Describe when it starts a run; times are UTC."""
        if self.either:
            return f"{_describe(self.fields)} (UTC)"
        *others, day, month, weekday = self.fields
        weekdays = _describe((*others, "*", month, weekday), DescriptionTypeEnum.DAYOFWEEK)
        return f"{_describe((*others, day, month, '*'))}{weekdays} (UTC)"

    def after(self, moment: datetime, count: int) -> list[datetime]:
        """Return the next times.

        Args:
            moment: Moment with a time zone; the first time returned is later.
            count: Number of times.

        Returns:
            ``count`` times in UTC, ascending; fewer if none comes within five years of the one before.
        """
        times = croniter(
            " ".join(self.fields),
            moment.astimezone(UTC),
            ret_type=datetime,
            day_or=self.either,
            max_years_between_matches=_YEARS,
            second_at_beginning=True,
        )
        moments: list[datetime] = []
        with contextlib.suppress(CroniterBadDateError):
            moments.extend(islice(times, count))
        return moments


def parse(text: str) -> Cron:
    """Read an expression.

    Raises:
        InputError: It does not have six fields, one of them is out of its range or not a field, or its time never
            comes.
    """
    words = text.split()
    if len(words) != len(_FIELDS):
        raise InputError(
            f'cron "{text}": must have 6 fields ({", ".join(_FIELDS)}), such as "0 0 6 * * *" for 06:00:00 every day; '
            f"it has {len(words)}"
        )
    fields = tuple(_field(name, word) for name, word in zip(_FIELDS, words, strict=True))
    either = not set("*?") & set(words[3] + words[5])
    cron = Cron(" ".join(words), fields, either)
    if not cron.after(datetime.now(UTC), 1):
        raise InputError(f'cron "{text}": such a day never comes')
    return cron


def _field(name: str, text: str) -> str:
    """Return a field with numbers for names, ``*`` for ``?``, no range of one value, and no step inside a list."""
    low, high, _ = _FIELDS[name]
    parts = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _wrong(name, text)
        if match["step"] and not re.fullmatch("[1-9][0-9]{0,3}", match["step"]):
            raise InputError(f'cron: {name} "{text}": a step must be a whole number from 1, not "{match["step"]}"')
        first, last = low, high
        if match["first"]:
            first = last = _number(match["first"], name, text)
        if match["last"]:
            last = _number(match["last"], name, text)
        elif match["step"]:
            last = high
        if first > last:
            raise InputError(f'cron: {name} "{text}": {part.partition("/")[0]} ends before it begins')
        parts.append((match["first"] is None, range(first, last + 1, int(match["step"] or 1))))
    if any(star and values.step == 1 for star, values in parts):
        return "*"
    if len(parts) > 1:
        return ",".join(str(value) for value in sorted({value for _, values in parts for value in values}))
    star, values = parts[0]
    if len(values) == 1:
        return str(values[0])
    step = f"/{values.step}" if values.step > 1 else ""
    return f"*{step}" if star else f"{values[0]}-{values.stop - 1}{step}"


def _number(word: str, name: str, text: str) -> int:
    low, high, names = _FIELDS[name]
    if word.upper() in names:
        return low + names.index(word.upper())
    if not re.fullmatch("[0-9]{1,4}", word) or not low <= int(word) <= high:
        raise _wrong(name, text)
    return int(word)


def _wrong(name: str, text: str) -> InputError:
    low, high, names = _FIELDS[name]
    also = f" or {', '.join(names)}" if names else ""
    return InputError(f'cron: {name} "{text}": must be {low} to {high}{also}, a range, a list, a step or *')


def _describe(fields: tuple[str, ...], kind: DescriptionTypeEnum = DescriptionTypeEnum.FULL) -> str:
    options = Options()
    options.use_24hour_time_format = True
    return str(ExpressionDescriptor(" ".join(fields), options).get_description(kind))
