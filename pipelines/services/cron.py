"""Cron expressions of six fields, seconds first, as Kubeflow reads them: checked, said in words, counted out.

Kubeflow uses github.com/robfig/cron 1.2, and so do the rules here. Where both a day of the month and a day of the
week are named, either will do; where one of the two is ``*`` or ``?``, also with a step, both must fit.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise, product

from alfamix_core.errors import InputError

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NAMES = {
    "month": {name[:3].upper(): place for place, name in enumerate(_MONTHS, start=1)},
    "day of the week": {name[:3].upper(): place for place, name in enumerate(_DAYS)},
}
_FIELDS = (
    *(("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23)),
    *(("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6)),
)
_YEARS = 5  # a time that does not come within them never comes, for Kubeflow too
_TIMES_IN_WORDS = 4


@dataclass(frozen=True)
class _Field:
    """One field: its values, ascending; and whether it was ``*`` or ``?``, with or without a step."""

    values: tuple[int, ...]
    star: bool
    full: bool


@dataclass(frozen=True)
class Cron:
    """A checked expression.

    Attributes:
        text: as it was written, with single spaces.
        fields: second, minute, hour, day of the month, month, day of the week.
    """

    text: str
    fields: tuple[_Field, ...]

    def words(self) -> str:
        """Say when it starts a run, in words; times are UTC."""
        _, _, _, day, month, weekday = self.fields
        on = [f"on day {_listed(day.values)} of the month"] if not day.full else []
        if not weekday.full:
            on.append(f"on {_listed(weekday.values, _DAYS)}")
        either = not day.star and not weekday.star
        days = (" or " if either else " if it is ").join(on).replace("if it is on", "if it is") or "every day"
        months = "" if month.full else f" in {_listed(month.values, ('', *_MONTHS))}"
        return f"{self._time_of_day()} UTC, {days}{months}"

    def _time_of_day(self) -> str:
        seconds, minutes, hours = (field.values for field in self.fields[:3])
        if len(seconds) * len(minutes) * len(hours) <= _TIMES_IN_WORDS:
            return "at " + _and([f"{h:02}:{m:02}:{s:02}" for h, m, s in product(hours, minutes, seconds)])
        parts = []
        for field, (name, _, _) in zip(self.fields[:3], _FIELDS, strict=False):
            parts.append(f"every {name}" if field.full else f"{name} {_listed(field.values)}")
        return "at " + " of ".join(parts)

    def after(self, moment: datetime, count: int) -> list[datetime]:
        """Return the next times.

        Args:
            moment: with a time zone; the first time returned is later.
            count: how many.

        Returns:
            ``count`` times in UTC, ascending; fewer when no more come within five years.
        """
        moment = moment.astimezone(UTC)
        found: list[datetime] = []
        seconds, minutes, hours = (field.values for field in self.fields[:3])
        for ahead in range(_YEARS * 366):
            day = moment.date() + timedelta(days=ahead)
            if not self._includes(day):
                continue
            for hour, minute, second in product(hours, minutes, seconds):
                at = datetime.combine(day, time(hour, minute, second), UTC)
                if at > moment:
                    found.append(at)
                    if len(found) == count:
                        return found
        return found

    def _includes(self, day: date) -> bool:
        _, _, _, days, months, weekdays = self.fields
        if day.month not in months.values:
            return False
        fits = (day.day in days.values, day.isoweekday() % 7 in weekdays.values)
        return all(fits) if days.star or weekdays.star else any(fits)


def parse(text: str) -> Cron:
    """Read an expression.

    Raises:
        InputError: it has not six fields, one of them is out of its range or no field, or its time never comes.
    """
    words = text.split()
    if len(words) != len(_FIELDS):
        names = ", ".join(name for name, _, _ in _FIELDS)
        raise InputError(
            f'cron "{text}": must have 6 fields ({names}), such as "0 0 6 * * *" for 06:00:00 every day; '
            f"it has {len(words)}"
        )
    fields = tuple(_field(word, *each) for word, each in zip(words, _FIELDS, strict=True))
    cron = Cron(" ".join(words), fields)
    if not cron.after(datetime.now(UTC), 1):
        raise InputError(f'cron "{text}": such a day never comes')
    return cron


def _field(text: str, name: str, low: int, high: int) -> _Field:
    values: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        first_text, dash, last_text = span.partition("-")
        if span in ("*", "?"):
            first, last, star = low, high, True
        else:
            first = _number(first_text, text, name, low, high)
            last = _number(last_text, text, name, low, high) if dash else high if slash else first
        step = int(step_text) if re.fullmatch(r"[1-9][0-9]{0,3}", step_text) else 0
        if slash and not step:
            raise InputError(f'cron: {name} "{text}": a step must be a whole number from 1, not "{step_text}"')
        if first > last:
            raise InputError(f'cron: {name} "{text}": {span} ends before it begins')
        values.update(range(first, last + 1, step or 1))
    return _Field(tuple(sorted(values)), star, len(values) == high - low + 1)


def _number(word: str, text: str, name: str, low: int, high: int) -> int:
    names = _NAMES.get(name, {})
    if word.upper() in names:
        return names[word.upper()]
    if not re.fullmatch(r"[0-9]{1,4}", word) or not low <= int(word) <= high:
        also = f" or {', '.join(names)}" if names else ""
        raise InputError(f'cron: {name} "{text}": must be {low} to {high}{also}, a range, a list, a step or *')
    return int(word)


def _listed(values: tuple[int, ...], names: tuple[str, ...] = ()) -> str:
    """Say numbers as a person would: spans as spans, even steps as steps."""
    steps = {after - before for before, after in pairwise(values)}
    show = [names[value] if names else str(value) for value in values]
    if len(values) > 2 and steps == {1}:
        return f"{show[0]} to {show[-1]}"
    if len(values) > 3 and len(steps) == 1:
        return f"{show[0]} to {show[-1]} in steps of {steps.pop()}"
    return _and(show)


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
