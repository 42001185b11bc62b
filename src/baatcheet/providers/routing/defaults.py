"""The routes that there are without anybody's doing, as data. An operator's route of the same name takes the place.

Steps of providers that are not configured are passed over.
"""

from typing import Final

from baatcheet.providers.routing.model import Route, Step


def _steps(*models: str) -> tuple[Step, ...]:
    return tuple([Step(model) for model in models])


BUILT_IN: Final[tuple[Route, ...]] = (
    Route(
        "fast",
        _steps(
            "groq/llama-3.1-8b-instant",
            "groq/openai/gpt-oss-20b",
            "gemini/gemini-2.5-flash-lite",
            "openai/gpt-4.1-nano",
            "anthropic/claude-haiku-4-5",
            "deepseek/deepseek-chat",
        ),
        strategy="fastest",
        description="A short wait for the first word.",
        otherwise="auto",
    ),
    Route(
        "smart",
        _steps(
            "anthropic/claude-opus-4-5",
            "anthropic/claude-sonnet-4-5",
            "openai/gpt-5",
            "gemini/gemini-2.5-pro",
            "deepseek/deepseek-reasoner",
            "groq/openai/gpt-oss-120b",
            "openrouter/meta-llama/llama-3.3-70b-instruct",
        ),
        description="The ablest model that there is.",
        otherwise="auto",
    ),
    Route(
        "vision",
        _steps(
            "gemini/gemini-2.5-flash",
            "openai/gpt-4.1-mini",
            "anthropic/claude-sonnet-4-5",
            "groq/meta-llama/llama-4-maverick-17b-128e-instruct",
            "groq/meta-llama/llama-4-scout-17b-16e-instruct",
        ),
        tasks=("chat", "vision", "ocr"),
        description="Sees pictures.",
        otherwise="sees",
    ),
    Route(
        "long",
        _steps(
            "gemini/gemini-2.5-pro",
            "gemini/gemini-2.5-flash",
            "openai/gpt-4.1",
            "openai/gpt-4.1-mini",
            "anthropic/claude-sonnet-4-5",
        ),
        description="A wide context window.",
        otherwise="widest",
    ),
)
