"""What is sent: a chat in OpenAI's form as a request to the Messages API.

Sources: platform.claude.com/docs/en/api/messages, …/api/migration-2026-10-21, …/agents-and-tools/tool-use.

What the Messages API has no word for is left out, as its vendor's own OpenAI-compatible endpoint does: temperature,
top_p, seed, penalties, logprobs, logit_bias, `response_format` json_object. `thinking`, in its own form, is passed on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from baatcheet.providers.adapters.anthropic.history import Untranslatable, history_of
from baatcheet.providers.model import Body, ModelCard

DEFAULT_MAX_TOKENS = (
    8_192  # of one reply, where neither the client nor the model's card says; the API needs a number
)
_CACHED: Mapping[str, str] = {"type": "ephemeral"}  # for five minutes
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}

Block = dict[str, Any]


def chat(body: Body, model: ModelCard, *, stream: bool) -> bytes:
    """`body` for `model`. Raises Untranslatable; ValueError or TypeError when it can't be written as JSON."""
    return msgspec.json.encode(translated(body, model, stream=stream))


def translated(body: Body, model: ModelCard, *, stream: bool = False) -> dict[str, Any]:
    """The request as a value. Raises Untranslatable."""
    if body.get("n") is not None and body["n"] != 1:
        raise Untranslatable("this provider gives one reply at a time: n must be 1")
    history = history_of(body.get("messages"))
    tools = _tools(body)
    choice = _tool_choice(body, tools)
    if not tools and history.called:
        # Calls in the history need their tools defined; without tools of its own, the request allows none.
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in history.called]
        choice = {"type": "none"}
    if not history.has_marks and not any("cache_control" in tool for tool in tools):
        _mark(history.system[: history.leading], tools, history.turns)
    sent: dict[str, Any] = {
        "model": model.name,
        "max_tokens": _max_tokens(body, model),
        "system": history.system,
        "messages": history.turns,
        "tools": tools,
        "tool_choice": choice,
        "stop_sequences": _stops(body.get("stop")),
        "output_config": _output(body),
        "thinking": body.get("thinking") if isinstance(body.get("thinking"), Mapping) else None,
        "stream": stream,
    }
    return {name: value for name, value in sent.items() if value}


def _mark(system: Sequence[Block], tools: Sequence[Block], turns: Sequence[dict[str, Any]]) -> None:
    """Ask for the stable parts to be cached, by three of the four marks that a request may have.

    They end at: the system prompt (tools come before it), the first message (the summary of what was pruned), and
    the newest reply (all before it stays as it is at the next turn). A first turn has only the first of them.
    """
    stable = system or tools
    if stable:
        stable[-1]["cache_control"] = _CACHED
    newest = next((turn for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if newest is not None:
        turns[0]["content"][0]["cache_control"] = _CACHED
        newest["content"][-1]["cache_control"] = _CACHED


def _max_tokens(body: Body, model: ModelCard) -> int:
    asked = next((body[n] for n in ("max_completion_tokens", "max_tokens") if body.get(n) is not None), None)
    if asked is None:
        return model.max_output or DEFAULT_MAX_TOKENS
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise Untranslatable("max_tokens must be a whole number, at least 1")
    return min(asked, model.max_output or asked)


def _stops(stop: object) -> list[str]:
    """Those that are not blank: the others are refused."""
    several = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return [one for one in several if isinstance(one, str) and one.strip()]


def _output(body: Body) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if (effort := _EFFORTS.get(str(body.get("reasoning_effort")))) is not None:
        config["effort"] = effort
    wanted = body.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema") if isinstance(described, Mapping) else None
        if not isinstance(schema, Mapping):
            raise Untranslatable("response_format of type json_schema needs a schema")
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def _tools(body: Body) -> list[Block]:
    given = body.get("tools")
    if not given:
        given = [{"type": "function", "function": one} for one in body.get("functions") or ()]
    return [_tool(one) for one in given] if isinstance(given, Sequence) else []


def _tool(given: object) -> Block:
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or given.get("type", "function") != "function":
        kind = given.get("type") if isinstance(given, Mapping) else given
        raise Untranslatable(f"this provider takes tools of the type function, and not {str(kind)[:50]!r}")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Untranslatable("a tool has no name")
    parameters = function.get("parameters")
    schema = dict(parameters) if isinstance(parameters, Mapping) else {"properties": {}}
    tool: Block = {"name": function["name"], "input_schema": {"type": "object"} | schema}
    if isinstance(function.get("description"), str) and function["description"].strip():
        tool["description"] = function["description"]
    if function.get("strict") is True:
        tool["strict"] = True
    if isinstance(given.get("cache_control"), Mapping):
        tool["cache_control"] = given["cache_control"]
    return tool


def _tool_choice(body: Body, tools: Sequence[Block]) -> Block | None:
    """None: the provider's default, which is `auto`. Some models refuse to be forced, and say so."""
    if not tools:
        return None
    wanted = body.get("tool_choice", body.get("function_call"))
    single = body.get("parallel_tool_calls") is False
    match wanted:
        case None | "auto":
            choice: Block = {"type": "auto"}
        case "none":
            return {"type": "none"}
        case "required":
            choice = {"type": "any"}
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            choice = {"type": "tool", "name": name}
        case _:
            raise Untranslatable("tool_choice must be auto, none, required or the name of a function")
    if single:
        choice["disable_parallel_tool_use"] = True
    return None if choice == {"type": "auto"} else choice
