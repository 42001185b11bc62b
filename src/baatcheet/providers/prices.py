"""What models cost: a table of the vendors' list prices, which an operator's own rows come before.

Money is whole *microcents*: millionths of a US cent, 10⁸ of them in a dollar. At a price of 1 USD per million tokens a
token costs 100 of them, so that even what costs fractions of a cent adds up exactly.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import Final

from baatcheet.providers.model import Usage

MICROCENTS: Final = 100_000_000  # in a US dollar
DEAREST: Final = Decimal(1_000_000)  # USD per million tokens, or per hour: what a price may be at most
PLACES: Final = 6  # decimal places that a price has at most

_PER_TOKEN: Final = Decimal(MICROCENTS) / 1_000_000  # microcents, at 1 USD per million tokens
_SECONDS: Final = 3600
_CACHED = "cached_tokens"
_WRITTEN = "cache_write_tokens"


def microcents(usd: Decimal) -> int:
    """`usd` in millionths of a cent, rounded up."""
    return int((usd * MICROCENTS).to_integral_value(ROUND_CEILING))


def dollars(amount: int) -> Decimal:
    """`amount` microcents in USD, exactly."""
    return Decimal(amount).scaleb(-8)


def matches(pattern: str, model_id: str) -> bool:
    """Whether a model is meant by `pattern`: its id, `provider/name`, in which each `*` stands for any text.

    Upper and lower case are the same.
    """
    first, *rest = pattern.lower().split("*")
    text = model_id.lower()
    if not rest:
        return text == first
    if not text.startswith(first):
        return False
    at, (*middle, last) = len(first), rest
    for piece in middle:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(text) - at >= len(last) and text.endswith(last)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; `hour`: per hour of a recording.

    `cached`: of the prompt's tokens that the provider read from its cache, `written`: that it wrote into it; None: they
    cost as others do.
    """

    prompt: Decimal
    completion: Decimal = Decimal(0)
    cached: Decimal | None = None
    written: Decimal | None = None
    hour: Decimal | None = None

    def cost(self, usage: Usage) -> int:
        """Microcents, rounded up. Tokens of the cache are taken for part of the prompt's."""
        details = usage.prompt_tokens_details or {}
        cached = min(details.get(_CACHED) or 0, usage.prompt_tokens)
        written = min(details.get(_WRITTEN) or 0, usage.prompt_tokens - cached)
        plain = usage.prompt_tokens - cached - written
        total = plain * self.prompt + usage.completion_tokens * self.completion
        total += cached * (self.prompt if self.cached is None else self.cached)
        total += written * (self.prompt if self.written is None else self.written)
        return int((total * _PER_TOKEN).to_integral_value(ROUND_CEILING))

    def cost_of_recording(self, seconds: float) -> int:
        """Microcents, rounded up; each begun second of a recording counts."""
        if self.hour is None:
            return 0
        whole = int(Decimal(seconds).to_integral_value(ROUND_CEILING))
        return int((self.hour * whole * MICROCENTS / _SECONDS).to_integral_value(ROUND_CEILING))


FREE: Final = Price(Decimal(0))


class Prices:
    """Prices by model id, `provider/name`. Read without waiting; `replace` takes an operator's rows."""

    def __init__(self, rows: Mapping[str, Price] | None = None) -> None:
        self._built_in = _Table(BUILT_IN.items())
        self._rows = _Table((rows or {}).items())

    def replace(self, rows: Mapping[str, Price]) -> None:
        """`rows`, by model ids or patterns, in place of those that were given before."""
        self._rows = _Table(rows.items())

    def of(self, model_id: str) -> Price | None:
        """None: nobody has said. A row comes before the built-in table, an id before a pattern, a longer one first."""
        found = self._rows.of(model_id)
        return self._built_in.of(model_id) if found is None else found


class _Table:
    def __init__(self, rows: Iterable[tuple[str, Price]]) -> None:
        self._exact: dict[str, Price] = {}
        self._patterns: list[tuple[str, Price]] = []
        for pattern, price in rows:
            if "*" in pattern:
                self._patterns.append((pattern, price))
            else:
                self._exact[pattern.lower()] = price
        self._patterns.sort(key=lambda row: (-len(row[0].replace("*", "")), row[0]))

    def of(self, model_id: str) -> Price | None:
        exact = self._exact.get(model_id.lower())
        if exact is not None:
            return exact
        return next((price for pattern, price in self._patterns if matches(pattern, model_id)), None)


def _usd(prompt: str, completion: str = "0", cached: str | None = None, written: str | None = None) -> Price:
    return Price(
        Decimal(prompt),
        Decimal(completion),
        None if cached is None else Decimal(cached),
        None if written is None else Decimal(written),
    )


def _per_hour(hour: str) -> Price:
    return Price(Decimal(0), hour=Decimal(hour))


# List prices as they were known then, without discounts (batches, nights) and surcharges (long prompts): a starting
# point, not compared with the vendors' pages since. `baatcheet budget price` sets one's own.
AS_OF: Final = date(2025, 11, 1)
BUILT_IN: Final[Mapping[str, Price]] = {
    "demo/*": FREE,
    "ollama/*": FREE,
    "local/*": FREE,
    # groq.com/pricing
    "groq/llama-3.3-70b-versatile": _usd("0.59", "0.79"),
    "groq/llama-3.1-8b-instant": _usd("0.05", "0.08"),
    "groq/openai/gpt-oss-120b": _usd("0.15", "0.60", "0.075"),
    "groq/openai/gpt-oss-20b": _usd("0.075", "0.30", "0.0375"),
    "groq/meta-llama/llama-4-scout-17b-16e-instruct": _usd("0.11", "0.34"),
    "groq/meta-llama/llama-4-maverick-17b-128e-instruct": _usd("0.20", "0.60"),
    "groq/qwen/qwen3-32b": _usd("0.29", "0.59"),
    "groq/moonshotai/kimi-k2-instruct*": _usd("1", "3", "0.5"),
    "groq/whisper-large-v3-turbo": _per_hour("0.04"),
    "groq/whisper-large-v3": _per_hour("0.111"),
    # openrouter.ai: those that are called so cost nothing
    "openrouter/*:free": FREE,
    # api-docs.deepseek.com/quick_start/pricing
    "deepseek/deepseek-chat": _usd("0.28", "0.42", "0.028"),
    "deepseek/deepseek-reasoner": _usd("0.28", "0.42", "0.028"),
    # ai.google.dev/gemini-api/docs/pricing
    "gemini/gemini-2.5-pro*": _usd("1.25", "10", "0.125"),
    "gemini/gemini-2.5-flash": _usd("0.30", "2.50", "0.03"),
    "gemini/gemini-2.5-flash-lite": _usd("0.10", "0.40", "0.01"),
    "gemini/gemini-embedding-001": _usd("0.15"),
    # platform.openai.com/docs/pricing
    "openai/gpt-4.1": _usd("2", "8", "0.5"),
    "openai/gpt-4.1-20*": _usd("2", "8", "0.5"),
    "openai/gpt-4.1-mini*": _usd("0.40", "1.60", "0.10"),
    "openai/gpt-4.1-nano*": _usd("0.10", "0.40", "0.025"),
    "openai/gpt-4o": _usd("2.50", "10", "1.25"),
    "openai/gpt-4o-20*": _usd("2.50", "10", "1.25"),
    "openai/gpt-4o-mini": _usd("0.15", "0.60", "0.075"),
    "openai/gpt-4o-mini-20*": _usd("0.15", "0.60", "0.075"),
    "openai/gpt-5": _usd("1.25", "10", "0.125"),
    "openai/gpt-5-20*": _usd("1.25", "10", "0.125"),
    "openai/gpt-5-mini*": _usd("0.25", "2", "0.025"),
    "openai/gpt-5-nano*": _usd("0.05", "0.40", "0.005"),
    "openai/o3": _usd("2", "8", "0.5"),
    "openai/o3-20*": _usd("2", "8", "0.5"),
    "openai/o4-mini*": _usd("1.10", "4.40", "0.275"),
    "openai/text-embedding-3-small": _usd("0.02"),
    "openai/text-embedding-3-large": _usd("0.13"),
    "openai/text-embedding-ada-002": _usd("0.10"),
    "openai/whisper-1": _per_hour("0.36"),
    "openai/gpt-4o-transcribe": _per_hour("0.36"),
    "openai/gpt-4o-mini-transcribe": _per_hour("0.18"),
    # docs.claude.com/en/docs/about-claude/pricing; `written`: into the cache for five minutes
    "anthropic/claude-opus-4-5*": _usd("5", "25", "0.50", "6.25"),
    "anthropic/claude-opus-4*": _usd("15", "75", "1.50", "18.75"),
    "anthropic/claude-sonnet-4*": _usd("3", "15", "0.30", "3.75"),
    "anthropic/claude-haiku-4-5*": _usd("1", "5", "0.10", "1.25"),
    "anthropic/claude-3-5-haiku*": _usd("0.80", "4", "0.08", "1"),
    "anthropic/claude-3-haiku*": _usd("0.25", "1.25", "0.03", "0.30"),
}
