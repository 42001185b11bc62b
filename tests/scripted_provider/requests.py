"""Refusing what OpenAI would refuse."""

from collections.abc import Mapping
from typing import Any

_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}


class BadRequestError(Exception):
    """A request that is refused with OpenAI's envelope."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def check(body: object) -> Mapping[str, Any]:
    """`body`, or BadRequestError as OpenAI words it."""
    if not isinstance(body, dict):
        raise BadRequestError("We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str):
        raise BadRequestError("you must provide a model parameter", "model", "missing_required_parameter")
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise BadRequestError(
            "Missing required parameter: 'messages'.", "messages", "missing_required_parameter"
        )
    if not messages:
        raise BadRequestError("[] is too short - 'messages'", "messages", "empty_array")
    for at, message in enumerate(messages):
        _message(message, f"messages[{at}]")
    _tool_order(messages)
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            raise BadRequestError(
                f"Invalid '{name}': expected a value from {low} to {high}.", name, "invalid_value"
            )
    n = body.get("n")
    if n is not None and not (isinstance(n, int) and 1 <= n <= 128):
        raise BadRequestError("Invalid 'n': expected an integer from 1 to 128.", "n", "invalid_value")
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > 4:
        raise BadRequestError("Invalid 'stop': array too long.", "stop", "array_above_max_length")
    _tools(body)
    _format(body, messages)
    return body


def _message(message: object, where: str) -> None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise BadRequestError(f"Invalid value: '{where}.role'.", f"{where}.role", "invalid_value")
    content = message.get("content")
    if content is None and message["role"] != "assistant":
        raise BadRequestError(
            f"Invalid value for 'content': expected a string, got null. ({where})", f"{where}.content"
        )
    if not isinstance(content, str | list | None):
        raise BadRequestError("Invalid type for 'content'.", f"{where}.content", "invalid_type")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise BadRequestError("Invalid content part.", f"{where}.content", "invalid_type")
        if part["type"] == "image_url":
            url = (part.get("image_url") or {}).get("url", "")
            if not url.startswith(("https://", "http://", "data:image/")):
                raise BadRequestError("Invalid image URL.", f"{where}.content", "invalid_image_url")


def _tool_order(messages: list[dict[str, Any]]) -> None:
    """Every call is answered, directly after it was made, and nothing else is."""
    owed: set[str] = set()
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in owed:
                raise BadRequestError(
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    f"messages[{at}].role",
                )
            owed.discard(message["tool_call_id"])
            continue
        if owed:
            raise BadRequestError(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. Missing: {', '.join(sorted(owed))}",
                f"messages[{at}].role",
            )
        owed = {call.get("id", "") for call in message.get("tool_calls") or ()}
    if owed:
        raise BadRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages.", "messages"
        )


def _tools(body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        if body.get("tool_choice") not in (None, "none", "auto"):
            refused = "'tool_choice' is only allowed when 'tools' are specified."
            raise BadRequestError(refused, "tool_choice")
        return
    if not isinstance(tools, list) or not all(
        isinstance(t, dict)
        and (t.get("type") != "function" or isinstance((t.get("function") or {}).get("name"), str))
        for t in tools
    ):
        raise BadRequestError("Invalid 'tools'.", "tools[0].function.name", "invalid_value")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if all(t["function"]["name"] != name for t in tools):
            raise BadRequestError(
                f"Tool choice '{name}' not found in 'tools'.", "tool_choice", "invalid_value"
            )


def _format(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> None:
    fmt = body.get("response_format")
    if fmt is None:
        return
    if not isinstance(fmt, dict) or fmt.get("type") not in {"text", "json_object", "json_schema"}:
        raise BadRequestError("Invalid 'response_format'.", "response_format.type", "invalid_value")
    if fmt["type"] == "json_object" and "json" not in str([m.get("content") for m in messages]).lower():
        raise BadRequestError(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
            "'json_object'.",
            "messages",
        )
