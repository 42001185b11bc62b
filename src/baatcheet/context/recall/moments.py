"""The stretches of time that a question names: last week, in May 2023, on the 5th of May."""

import calendar
import re
from datetime import datetime, timedelta

from baatcheet.context.recall.vocabulary import vocabulary

Span = tuple[datetime, datetime]

_MONTH = re.compile(
    r"(?:(?P<day>\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?)?\b(?P<month>[A-Z][a-z]{2,8})\b\.?"
    r"(?:\s+(?P<after>\d{1,2})(?:st|nd|rd|th)?\b(?!\d))?(?:,?\s+(?P<year>(?:19|20)\d\d))?"
)
_NUMERIC = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_AGO = re.compile(
    r"\b(\d+|a|an|one|two|three|four|five|six|couple of|few)\s+(day|week|month|year)s?\s+ago\b", re.IGNORECASE
)
_LAST = re.compile(
    r"\b(?:last|past|previous|pichl[aei])\s+(day|week|weekend|month|year|haft[ae]|mahin[ae]|saal)\b",
    re.IGNORECASE,
)
_YESTERDAY = re.compile(r"\byesterday\b", re.IGNORECASE)
_TODAY = re.compile(r"\b(?:today|this morning|earlier today)\b", re.IGNORECASE)
_COUNTS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "couple of": 2,
    "few": 3,
}
_DAYS = {"day": 1, "week": 7, "weekend": 7, "month": 30, "year": 365, "haft": 7, "mahin": 30, "saal": 365}


def spans(text: str, now: datetime) -> tuple[Span, ...]:
    """When what `text` asks for was said, or happened; a little widened, since it is told afterwards."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found: list[Span] = []
    for match in _NUMERIC.finditer(text):
        year, month, date = map(int, match.groups())
        if 1 <= month <= 12 and 1 <= date <= 31 and year >= 1:
            found += _dated(now, year, month, date)
    for match in _MONTH.finditer(text):
        number = _month(str(match["month"]))
        if number is not None:
            said = match["day"] or match["after"]
            found += _dated(
                now, int(match["year"]) if match["year"] else None, number, int(said) if said else None
            )
    for match in _AGO.finditer(text):
        many, unit = match[1].lower(), _DAYS[str(match[2]).lower()]
        count = _COUNTS.get(many) or int(many[:4])
        middle = timedelta(days=min(count * unit, 20_000))
        slack = timedelta(days=max(1, unit // 2))
        if middle + slack < day - datetime(1, 1, 2, tzinfo=day.tzinfo):
            found.append((day - middle - slack, day - middle + slack + timedelta(days=1)))
    for match in _LAST.finditer(text):
        named = match[1].lower()
        days = _DAYS.get(named) or _DAYS[named[:-1]]
        found.append((day - timedelta(days=2 * days), day))
    if _YESTERDAY.search(text):
        found.append((day - timedelta(days=1), day))
    if _TODAY.search(text):
        found.append((day, day + timedelta(days=1)))
    return tuple(found)


def _month(name: str) -> int | None:
    return 5 if name == "May" else vocabulary().months.get(name.lower())


def _dated(now: datetime, year: int | None, month: int, date: int | None) -> list[Span]:
    if year is None:
        year = now.year if month <= now.month else now.year - 1
    if not 1 < year < 9000:
        return []
    last = calendar.monthrange(year, month)[1]
    start = datetime(year, month, min(max(date or 1, 1), last), tzinfo=now.tzinfo)
    length = 1 if date else last
    return [(start, start + timedelta(days=length + 10))]
