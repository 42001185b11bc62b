"""A message on the wire (OpenAI's form) and as it is stored: its text, and beside it what is more than text."""

from collections.abc import Mapping
from typing import Any

_BESIDE = (
    "tool_calls",
    "tool_call_id",
    "name",
    "refusal",
    "audio",
    "function_call",
    "reasoning_content",
    "annotations",
)


def stored_form(message: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The text of `message` (its text parts joined by newlines) and the rest of it, or None when there is no rest."""
    content = message.get("content")
    rest: dict[str, Any] = {key: message[key] for key in _BESIDE if message.get(key) is not None}
    if isinstance(content, list):
        rest["content"] = content
    return text_of(content), rest or None


def text_of(content: Any) -> str:
    """The text of a message's content: the content itself, or its text parts joined by newlines. Only str is text."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return "\n".join([text for part in parts if isinstance(text := part.get("text"), str)])
    return content if isinstance(content, str) else ""


def wire_form(role: str, content: str, parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """The message that a provider is sent."""
    if not parts:
        return {"role": role, "content": content}
    message: dict[str, Any] = {"role": role, "content": parts.get("content", content)}
    if role == "assistant" and not message["content"] and parts.get("tool_calls"):
        message["content"] = None
    return message | {key: value for key, value in parts.items() if key in _SENT}


_SENT = ("tool_calls", "tool_call_id", "name", "refusal")
