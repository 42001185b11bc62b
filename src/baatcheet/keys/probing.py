"""Asking a provider whether a key is good, by the cheapest call that it has."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from baatcheet.keys.secret import SecretKey

Verdict = Literal["good", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Probed:
    """What a provider says of a key.

    `refused`: the key is no good (401, 402, 403). `unknown`: the provider could not be asked, or had no time.
    `words`: fit for people, without the key.
    """

    verdict: Verdict
    words: str = ""


Probe = Callable[[str, SecretKey], Awaitable[Probed]]
"""Takes a provider's name and a key. Bounded in time; raises nothing."""
