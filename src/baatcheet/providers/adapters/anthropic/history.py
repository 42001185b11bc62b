"""A chat's messages in OpenAI's form as those of the Messages API, which has rules of its own.

The system prompt stands apart. Roles take turns; the first and the last turn is the user's (current models refuse to
continue a reply that was begun for them). No text is blank. Every call of a tool is answered by a result at the very
beginning of the next turn, and every result answers one; ids are of letters, digits, `-` and `_`, each used once.

A model's earlier thinking is left out: its blocks can only be given back complete and signed, and OpenAI's form has
no place for that. Requests without them are served.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from baatcheet.providers.adapters.received import UnreadableError, read

BEGINS = "…"  # the user's first turn, where the history begins with a reply
GOES_ON = "Continue."  # the user's last turn, where the history ends with a reply
NO_RESULT = "No result was given."
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*?;base64,", re.IGNORECASE)
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_ID = 64  # characters
_LONGEST_NAME = 128

Block = dict[str, Any]


class Untranslatable(ValueError):
    """The Messages API has no form for this. `str(error)` is fit for a client."""


class History:
    """What a request says of the conversation so far."""

    def __init__(self) -> None:
        self.system: list[Block] = []
        self.leading = 0  # of `system`: how many stood before everything else
        self.turns: list[dict[str, Any]] = []
        self.called: dict[str, None] = {}  # names of the tools that were called
        self.has_marks = False  # whether the client marks what is to be cached itself
        self._open: list[
            tuple[str, str]
        ] = []  # calls of the newest reply without an answer: their id, and ours
        self._results = 0  # at the beginning of the newest turn
        self._ids: set[str] = set()

    def add(self, message: object) -> None:
        if not isinstance(message, Mapping):
            raise Untranslatable("a message is not an object")
        content = message.get("content")
        match message.get("role"):
            case "system" | "developer":
                self.system += self._texts(content)
                self.leading = self.leading if self.turns else len(self.system)
            case "user":
                self._say("user", self._blocks(content))
            case "assistant":
                self._reply(message)
            case "tool":
                self._answer(str(message.get("tool_call_id")), content)
            case "function":
                self._answer(_function_id(message.get("name")), content)
            case role:
                raise Untranslatable(f"this provider knows no messages of the role {str(role)[:50]!r}")

    def end(self) -> None:
        self._close()
        if not self.turns or self.turns[-1]["role"] == "assistant":
            self._say("user", [_text(GOES_ON)])
        if self.turns[0]["role"] == "assistant":
            self.turns.insert(0, {"role": "user", "content": [_text(BEGINS)]})

    def _say(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})
            self._results = 0

    def _reply(self, message: Mapping[str, Any]) -> None:
        self._close()
        blocks = self._texts(message.get("content"))
        blocks += self._texts(message.get("refusal"))
        for id_, function in _calls_of(message):
            name = _FOREIGN.sub("_", str(function.get("name") or "unnamed"))[:_LONGEST_NAME]
            self.called[name] = None
            ours = self._new_id(id_)
            self._open.append((id_, ours))
            blocks.append(
                {"type": "tool_use", "id": ours, "name": name, "input": _input(function.get("arguments"))}
            )
        self._say("assistant", blocks)

    def _new_id(self, wanted: str) -> str:
        base = _FOREIGN.sub("_", wanted)[:_LONGEST_ID] or "call"
        found, number = base, 1
        while found in self._ids:
            number += 1
            found = f"{base}_{number}"
        self._ids.add(found)
        return found

    def _answer(self, id_: str, content: object) -> None:
        blocks = self._blocks(content)
        answered = next((call for call in self._open if call[0] == id_), None)
        if answered is None:
            self._say("user", blocks)  # nobody asked for it; what it says may count all the same
            return
        self._open.remove(answered)
        result: Block = {"type": "tool_result", "tool_use_id": answered[1]}
        self._result(result | {"content": blocks} if blocks else result)

    def _result(self, block: Block) -> None:
        if self.turns[-1]["role"] == "assistant":
            self._say("user", [block])
        else:
            self.turns[-1]["content"].insert(self._results, block)
        self._results += 1

    def _close(self) -> None:
        """Answer what nobody answered."""
        for _, ours in self._open:
            self._result({"type": "tool_result", "tool_use_id": ours, "is_error": True, "content": NO_RESULT})
        self._open.clear()

    def _texts(self, content: object) -> list[Block]:
        """Of a message that holds nothing but text."""
        blocks = self._blocks(content)
        if other := next((block["type"] for block in blocks if block["type"] != "text"), None):
            raise Untranslatable(f"this provider takes a part of the type {other} from users and tools only")
        return blocks

    def _blocks(self, content: object) -> list[Block]:
        if content is None:
            return []
        if isinstance(content, str):
            return [_text(content)] if content.strip() else []
        if not isinstance(content, list):
            raise Untranslatable("the content of a message is neither text nor a list of parts")
        return [block for part in content if (block := self._block(part)) is not None]

    def _block(self, part: object) -> Block | None:
        if not isinstance(part, Mapping):
            raise Untranslatable("a part of a message is not an object")
        match part.get("type"):
            case "text" | "refusal" as kind:
                text = part.get("text" if kind == "text" else "refusal")
                block = _text(text) if isinstance(text, str) and text.strip() else None
            case "image_url":
                block = {"type": "image", "source": _picture(part.get("image_url"))}
            case "file":
                block = _document(part.get("file"))
            case kind:
                raise Untranslatable(f"this provider takes no parts of the type {str(kind)[:50]!r}")
        mark = part.get("cache_control")
        if block is not None and isinstance(mark, Mapping):
            self.has_marks = True
            block["cache_control"] = mark
        return block


def history_of(messages: object) -> History:
    """Raises Untranslatable."""
    if not isinstance(messages, list | tuple):
        raise Untranslatable("messages must be a list")
    history = History()
    for message in messages:
        history.add(message)
    history.end()
    return history


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _calls_of(message: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The calls of a reply: their ids and functions. The older form has one without an id."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise Untranslatable("a tool call has no function")
        yield str(call.get("id")), function
    if isinstance(older := message.get("function_call"), Mapping):
        yield _function_id(older.get("name")), older


def _function_id(name: object) -> str:
    return f"function_{name}"


def _input(arguments: object) -> Mapping[str, Any]:
    """A call's arguments as the object that they must be; what a model wrote otherwise is wrapped in one."""
    if not isinstance(arguments, str) or not arguments.strip():
        return {}
    try:
        value = read(arguments.encode(errors="replace"))
    except UnreadableError:
        return {"arguments": arguments}
    return value if isinstance(value, dict) else {"arguments": value}


def _picture(given: object) -> Block:
    url = given.get("url") if isinstance(given, Mapping) else given
    if not isinstance(url, str):
        raise Untranslatable("a picture has no url")
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    media_type, data = _data(url, "a picture's url must begin with https:// or be a data: URL in base64")
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in PICTURES:
        raise Untranslatable(
            f"this provider takes pictures of {', '.join(sorted(PICTURES))}, not {media_type}"
        )
    return {"type": "base64", "media_type": media_type, "data": data}


def _document(given: object) -> Block:
    """A PDF file."""
    data_url = given.get("file_data") if isinstance(given, Mapping) else None
    problem = "a file must hold its data, as a data: URL in base64"
    if not isinstance(given, Mapping) or not isinstance(data_url, str):
        raise Untranslatable(problem)
    media_type, data = _data(data_url, problem)
    if media_type != "application/pdf":
        raise Untranslatable(f"this provider takes files of application/pdf, not {media_type}")
    block: Block = {
        "type": "document",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }
    if isinstance(given.get("filename"), str) and given["filename"].strip():
        block["title"] = given["filename"][:255]
    return block


def _data(url: str, problem: str) -> tuple[str, str]:
    found = _DATA.match(url)
    if found is None or found.end() == len(url):
        raise Untranslatable(problem)
    return found[1].lower(), url[found.end() :]
