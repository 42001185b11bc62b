"""What a provider's answer says of how much of a key's quota is left.

Three families: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (OpenAI, Groq: the reset is a time to wait, as
`1m26.4s`), `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` (the reset is a
moment, RFC 3339), and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, the present form `"name";r=5;t=30` and the
earlier `limit=10, remaining=5, reset=30`) with the `RateLimit-Limit`, `-Remaining`, `-Reset` that came before it, also
under `X-` (OpenRouter: the reset is a moment in milliseconds).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*")
_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SPANS: Final = re.compile(r"\s*(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,6}\s*")
_PARAMETER: Final = re.compile(r"(?<![\w-])(r|t|limit|remaining|reset)\s*=\s*\"?(\d{1,15})")
_LONGEST: Final = 200  # characters of a value that are read
_MILLISECONDS: Final = 1e11  # a moment above this is in milliseconds
_MOMENT: Final = 1e8  # a number above this is a moment, below a time to wait


class Allowance(NamedTuple):
    """`left` of something may still be used within the next `seconds`; `limit`: of how much, where that is told."""

    left: int
    seconds: float
    limit: int | None = None


class Allowances(NamedTuple):
    """What an answer's headers allow, as far as they say anything that can be read."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


NOTHING: Final = Allowances()


def read(headers: Mapping[str, str], now: float) -> Allowances:
    """What `headers` (names in any case) say at the Unix time `now`. What can't be read is passed over."""
    found = {
        lower: str(value)[:_LONGEST]
        for name, value in headers.items()
        if "ratelimit" in (lower := name.lower())
    }
    if not found:
        return NOTHING
    requests = [
        _allowance(found, "x-ratelimit-{}-requests", now),
        _allowance(found, "anthropic-ratelimit-requests-{}", now),
        _allowance(found, "x-ratelimit-{}", now),
        _allowance(found, "ratelimit-{}", now),
        *_structured(found.get("ratelimit", "")),
    ]
    tokens = [
        _allowance(found, "x-ratelimit-{}-tokens", now),
        _allowance(found, "anthropic-ratelimit-tokens-{}", now),
        _allowance(found, "anthropic-ratelimit-input-tokens-{}", now),
        _allowance(found, "anthropic-ratelimit-output-tokens-{}", now),
    ]
    return Allowances(_scarcest(requests), _scarcest(tokens))


def _scarcest(told: list[Allowance | None]) -> Allowance | None:
    """Of several limits on one thing, the one that is nearest."""
    return min(
        (one for one in told if one is not None), key=lambda one: (one.left, -one.seconds), default=None
    )


def _allowance(found: Mapping[str, str], form: str, now: float) -> Allowance | None:
    left = _number(found.get(form.format("remaining")))
    seconds = _wait(found.get(form.format("reset")), now)
    if left is None or seconds is None:
        return None
    limit = _number(found.get(form.format("limit")))
    return Allowance(int(left), seconds, None if limit is None else int(limit))


def _structured(value: str) -> list[Allowance]:
    allowances = []
    # In the earlier form the commas part its members, in the present one its policies.
    for policy in [value] if "remaining" in value else value.split(","):
        told = {name: int(number) for name, number in _PARAMETER.findall(policy)}
        left, seconds = told.get("r", told.get("remaining")), told.get("t", told.get("reset"))
        if left is not None and seconds is not None:
            allowances.append(Allowance(left, float(seconds), told.get("limit")))
    return allowances


def _number(value: str | None) -> float | None:
    matched = _NUMBER.fullmatch(value) if value is not None else None
    return float(matched[1]) if matched else None


def _wait(value: str | None, now: float) -> float | None:
    """Seconds from now: of a time to wait, or until a moment."""
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        if number >= _MILLISECONDS:
            number /= 1000
        return max(0.0, number - now) if number >= _MOMENT else number
    if _SPANS.fullmatch(value):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _SPAN.findall(value))
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError):
        return None
