"""What the scripted provider says of its own accord: echoes, JSON that fits a schema, calls of tools."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .steps import Call

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|“([^”]+)”")
_PLACE = re.compile(r"\b(?:in|at|for|of) ([A-Z][\w.]*(?:,? [A-Z][\w.]*)*)")
_WORD = re.compile(r"[a-z]+|[A-Z][a-z]*|[A-Z]+")
_COMMON = {
    "get",
    "set",
    "my",
    "the",
    "a",
    "an",
    "tool",
    "function",
    "run",
    "do",
    "no",
    "args",
    "call",
    "use",
    "of",
    "list",
}


@dataclass(frozen=True)
class Answer:
    """Either a text or calls of tools."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def answer(body: Mapping[str, Any]) -> Answer:
    """The reply to a valid request."""
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    said = last_user_text(messages)
    fmt = body.get("response_format") or {}
    after_tool = messages[-1].get("role") in {"tool", "function"}
    if tools := [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]:
        chosen = _chosen(tools, body.get("tool_choice", "auto"), said, after_tool=after_tool)
        if chosen:
            made = tuple(Call(tool["name"], _arguments(tool, said)) for tool in chosen)
            return Answer(calls=made[:1] if body.get("parallel_tool_calls") is False else made)
    if fmt.get("type") == "json_schema":
        return Answer(text=_json(fit(fmt["json_schema"].get("schema") or {}, said)))
    if fmt.get("type") == "json_object":
        keys = [next(filter(None, found)) for found in _QUOTED.findall(said)]
        return Answer(text=_json({key: f"scripted {key}" for key in keys} or {"answer": said[:200]}))
    if after_tool:
        return Answer(text=f"The tool answered: {content_text(messages[-1].get('content'))}")
    return Answer(text=f"You said: {said}")


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    return next((content_text(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")


def content_text(content: object) -> str:
    """A message's content as text; a part that is not text is named in brackets."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            str(part.get("text", ""))
            if part.get("type") in {"text", "input_text"}
            else f"[{part.get('type')}]"
            for part in content
            if isinstance(part, dict)
        )
    return str(content)


def _chosen(
    tools: Sequence[Mapping[str, Any]], choice: object, said: str, *, after_tool: bool
) -> list[Mapping[str, Any]]:
    if choice == "none":
        return []
    if isinstance(choice, Mapping):
        name = choice.get("function", {}).get("name")
        return [tool for tool in tools if tool["name"] == name]
    if choice in {"required", "any"}:
        return [*_wanted(tools, said), tools[0]][:1]
    return [] if after_tool else _wanted(tools, said)


def _wanted(tools: Sequence[Mapping[str, Any]], said: str) -> list[Mapping[str, Any]]:
    """The tools that a message asks for: by full name, or else by a telling word of the name."""
    named = [tool for tool in tools if re.search(rf"\b{re.escape(tool['name'])}\b", said)]
    if named:
        return named
    words = {word.lower() for word in _WORD.findall(said)}
    telling = [t for t in tools if words & ({w.lower() for w in _WORD.findall(t["name"])} - _COMMON)]
    if telling or "use the tool" not in said.lower():
        return telling
    return list(tools[:1])


def _arguments(tool: Mapping[str, Any], said: str) -> str:
    return _json(fit(tool.get("parameters") or {}, said))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def fit(schema: Mapping[str, Any], said: str = "") -> Any:
    """A value that fits a JSON Schema, with the numbers and quoted words of `said` where they fit."""
    return _Generator(schema, said).value(schema, "answer", 0)


class _Generator:
    def __init__(self, root: Mapping[str, Any], said: str) -> None:
        self._root = root
        self._said = said
        self._numbers: Iterator[str] = iter(_NUMBER.findall(said))
        self._quoted: Iterator[tuple[str, ...]] = iter(_QUOTED.findall(said))

    def value(  # noqa: C901, PLR0912 - one branch for each keyword of JSON Schema
        self, schema: Mapping[str, Any], name: str, depth: int
    ) -> Any:
        if depth > 8:
            return None
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return next(
                (one for one in schema["enum"] if str(one).lower() in self._said.lower()), schema["enum"][0]
            )
        for several in ("anyOf", "oneOf", "allOf"):
            if schema.get(several):
                options = [one for one in schema[several] if one.get("type") != "null"]
                return self.value(options[0], name, depth + 1) if options else None
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        match kind:
            case "object":
                return {k: self.value(v, k, depth + 1) for k, v in (schema.get("properties") or {}).items()}
            case "array":
                count = max(1, schema.get("minItems", 1))
                return [self.value(schema.get("items") or {}, name, depth + 1) for _ in range(count)]
            case "integer":
                return int(self._number(schema))
            case "number":
                return self._number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _resolve(self, ref: str) -> Mapping[str, Any]:
        found: Any = self._root
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _number(self, schema: Mapping[str, Any]) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1e15))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1e15))
        number = float(next(self._numbers, "1"))
        return number if low <= number <= high else float(schema.get("minimum", low + 1))

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        formats: dict[object, str] = {
            "date": "2026-01-31",
            "date-time": "2026-01-31T12:00:00Z",
            "email": "scripted@example.com",
            "uri": "https://example.com/",
            "uuid": "00000000-0000-4000-8000-000000000000",
        }
        if schema.get("format") in formats:
            return formats[schema["format"]]
        text = "".join(next(self._quoted, ()))
        if not text and name in {"location", "city", "place"} and (place := _PLACE.search(self._said)):
            text = place.group(1)
        text = text or f"scripted {name}"
        least: int = schema.get("minLength", 0)
        most: int = schema.get("maxLength", max(least, len(text)))
        return text.ljust(least, ".")[:most]
