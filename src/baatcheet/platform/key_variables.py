"""The environment variables that hold providers' keys: `GROQ_API_KEY`, `GROQ_API_KEY_1` …, or `GROQ_API_KEYS`."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Of several names for one provider, the first is the one that is written.
KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "groq": ("GROQ_API_KEY",),
        "openrouter": ("OPENROUTER_API_KEY",),
        "deepseek": ("DEEPSEEK_API_KEY",),
        "gemini": ("GEMINI_API_KEY",),
        "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
        "openai": ("OPENAI_API_KEY",),
        "anthropic": ("ANTHROPIC_API_KEY",),
        "ocr_space": ("OCR_SPACE_API_KEY",),
        # What new keys are made with, at providers that have an API for that. They never answer a chat.
        "openrouter_provisioning": ("OPENROUTER_PROVISIONING_KEY",),
        "openai_admin": ("OPENAI_ADMIN_KEY",),
    }
)

_NUMBER = re.compile(r"(.+)_(\d{1,4})")


def variable_of(provider: str) -> str:
    """The variable that a provider's keys are written to, without a number: its own name's for one of one's own."""
    known = KEY_VARIABLES.get(provider)
    return known[0] if known else re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY"


def provider_of(variable: str, others: Mapping[str, str] = MappingProxyType({})) -> tuple[str, int] | None:
    """Whose key `variable` holds, and its number (0 without one); None when it holds none.

    `others`: variable by the name of a provider of one's own.
    """
    names = {name: provider for provider, names in KEY_VARIABLES.items() for name in names}
    names |= {name: provider for provider, name in others.items()}
    if variable in names:
        return names[variable], 0
    numbered = _NUMBER.fullmatch(variable)
    if numbered is not None and numbered[1] in names:
        return names[numbered[1]], int(numbered[2])
    plural = variable.removesuffix("S")
    if plural != variable and plural in names:
        return names[plural], 0
    return None


def keys_in(values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The keys in `values` (an environment) by provider: each once, those without a number first.

    A variable whose name ends with S holds several, comma-separated. Encrypted values are passed over.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for variable, value in values.items():
        whose = provider_of(variable)
        if whose is None or value.startswith("encrypted:"):
            continue
        for one in value.split(","):
            if one.strip():
                found.setdefault(whose[0], []).append((whose[1], one.strip()))
    return {
        provider: tuple(dict.fromkeys(key for _, key in sorted(keys, key=lambda one: one[0])))
        for provider, keys in found.items()
    }
