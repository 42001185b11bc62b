"""What one key may be used for: what is known of the providers' own limits, as data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """What one key may be used for by the whole deployment. None: without limit. A day begins at midnight UTC."""

    requests_per_day: int | None = None
    tokens_per_minute: int | None = None


UNLIMITED: Final = Limits()

KNOWN: Final[Mapping[str, Limits]] = MappingProxyType(
    {
        "groq": Limits(requests_per_day=14_400),
        "openrouter": Limits(requests_per_day=200),
        "deepseek": Limits(requests_per_day=1_000),
        "gemini": Limits(requests_per_day=1_500),
        "huggingface": Limits(requests_per_day=1_000),
        "ocr_space": Limits(requests_per_day=500),
    }
)


def limits_of(provider: str, overrides: Mapping[str, Mapping[str, int]] = MappingProxyType({})) -> Limits:
    """The limits of one key of `provider`: the overridden ones (0: without limit), else what is known of it.

    Raises ValueError for a limit that does not exist, naming it.
    """
    known = KNOWN.get(provider, UNLIMITED)
    given = overrides.get(provider, {})
    unknown = sorted(set(given) - set(Limits.__struct_fields__))
    if unknown:
        raise ValueError(
            f"{provider} has a limit called {unknown[0]!r}; there are {', '.join(Limits.__struct_fields__)}"
        )
    return msgspec.structs.replace(known, **{name: value or None for name, value in given.items()})
