"""Reading the export of ChatGPT, whose format nobody publishes: leniently, keeping what a reader would miss.

A conversation is a `mapping` of nodes by id, each with its parent; `current_node` ends the branch that was open. Not
every node is a message: roots are empty, and much was never shown (system texts, memory, what was sent to tools under
way). A node that is left out is stepped over: what follows it follows what was before it. What is made of the rest:

    what ChatGPT has                                     what becomes of it
    custom instructions                                  the conversation's system prompt
    an assistant's message to a tool (`recipient`)       a tool call of the assistant's
    a tool's message                                     the result of the call before it
    `thoughts`                                           `reasoning_content` of the reply that follows
    pictures, recordings, files                          named in the text, and kept beside it as `assets`
    hidden, empty, `reasoning_recap`, of weight 0        left out, and counted in a note
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from baatcheet.exports.importing.normal import Limits, Line, Normalized, Wrong
from baatcheet.exports.importing.own_format import MOST_MESSAGES, MOST_SYSTEM_PROMPT, MOST_TITLE, decoded
from baatcheet.exports.importing.trees import Loop, parents_first
from baatcheet.exports.json_format import NULL
from baatcheet.kit.text import headline, storable, storable_json

MOST_NAME: Final = 200
_EARLIEST: Final = 0.0
_LATEST: Final = 4_102_444_800.0  # seconds: the year 2100

# What only ChatGPT's page can show: where a citation, an entity or a picture of a search stands.
_MARKER = re.compile("\ue200[^\ue200\ue201]{0,2000}\ue201")
_FINISHED = {
    "stop": "stop",
    "max_tokens": "length",
    "interrupted": "interrupted",
    "client_stop": "interrupted",
}
_RECORDINGS = {
    "audio_asset_pointer",
    "real_time_user_audio_video_asset_pointer",
    "video_container_asset_pointer",
}
_INSTRUCTIONS = ("user_profile", "user_instructions")
_OLD_INSTRUCTIONS = ("about_user_message", "about_model_message")

Json = dict[str, Any]


class _Conversation(msgspec.Struct):
    mapping: dict[str, msgspec.Raw]
    title: msgspec.Raw = NULL
    create_time: msgspec.Raw = NULL
    update_time: msgspec.Raw = NULL
    current_node: msgspec.Raw = NULL
    conversation_id: msgspec.Raw = NULL
    id: msgspec.Raw = NULL
    is_archived: msgspec.Raw = NULL
    is_starred: msgspec.Raw = NULL
    pinned_time: msgspec.Raw = NULL
    default_model_slug: msgspec.Raw = NULL
    model_slug: msgspec.Raw = NULL


class _Links(msgspec.Struct):
    """Of a node, what it hangs by. Newer exports leave out `children`, older ones name parents that are not there."""

    parent: msgspec.Raw = NULL
    children: msgspec.Raw = NULL


class _Node(msgspec.Struct):
    message: msgspec.Raw = NULL


class _Timed(msgspec.Struct):
    create_time: msgspec.Raw = NULL


@dataclass
class _Context:
    """What is handed down from a node to what follows it."""

    parent: int | None = None  # the message that it follows
    call: str | None = None  # the tool call that is open
    thoughts: tuple[str, ...] = ()
    at: datetime | None = None


@dataclass
class _Said:
    """What a node says."""

    role: str
    content: str
    parts: Json = field(default_factory=dict)


def read_conversation(
    raw: Any, where: str, into: Normalized, limits: Limits, tick: Callable[[], None]
) -> None:
    """Add one conversation, or the reason why it can't be used. `tick` is called for every node."""
    into.begin()
    title, source_id = "", ""
    try:
        talk = decoded(raw, _Conversation, where)
        title, source_id = _title(talk), _source_id(talk)
        _Reader(talk, where, into, limits, tick).read(title, source_id)
    except Wrong as problem:
        into.refuse(source_id=source_id, title=title, problem=str(problem))


def _title(talk: _Conversation) -> str:
    title = _value(talk.title)
    return headline(storable(title), MOST_TITLE) if isinstance(title, str) else ""


def _source_id(talk: _Conversation) -> str:
    for raw in (talk.conversation_id, talk.id):
        found = _value(raw)
        if isinstance(found, str):
            return "".join(one for one in found[:MOST_NAME] if one.isprintable())
    return ""


class _Reader:
    def __init__(
        self,
        talk: _Conversation,
        where: str,
        into: Normalized,
        limits: Limits,
        tick: Callable[[], None],
    ) -> None:
        self._talk = talk
        self._where = where
        self._into = into
        self._limits = limits
        self._tick = tick
        self._begun = _moment(_value(talk.create_time)) or _moment(_value(talk.update_time)) or into.now
        self._model = _name(_value(talk.default_model_slug)) or _name(_value(talk.model_slug))
        self._instructions = ""
        self._left_out: Counter[str] = Counter()

    def read(self, title: str, source_id: str) -> None:
        talk = self._talk
        names = list(talk.mapping)
        if len(names) > MOST_MESSAGES:
            raise Wrong(f"{self._where}.mapping: there are more than {MOST_MESSAGES:,} nodes")
        parents, ranks = self._links(names)
        try:
            order = parents_first([parents[at] for at in range(len(names))])
        except Loop as loop:
            shown = _name(names[loop.place]) or ""
            raise Wrong(f"{self._where}.mapping[{shown!r}]: its parents lead back to itself") from None
        order = self._as_said(names, parents, order, ranks)
        contexts: dict[int, _Context] = {}
        latest: tuple[datetime, int] | None = None
        for at in order:
            above = parents[at]
            before = contexts[above] if above is not None else _Context()
            contexts[at] = after = self._node(names[at], before)
            if after.parent is not None and after.at is not None:
                latest = max(latest or (after.at, 0), (after.at, after.parent))
            self._tick()
        if self._into.written == 0:
            raise Wrong(f"{self._where}: there is no message in it that was shown")
        current = _value(talk.current_node)
        open_at = names.index(current) if isinstance(current, str) and current in talk.mapping else None
        head = contexts[open_at].parent if open_at is not None else None
        if head is None and latest is not None:
            head = latest[1]
        ended = latest[0] if latest is not None else self._begun
        archived, starred, pinned = map(_value, (talk.is_archived, talk.is_starred, talk.pinned_time))
        self._into.keep(
            source_id=source_id,
            title=title,
            created_at=self._begun,
            updated_at=_moment(_value(talk.update_time)) or max(self._begun, ended),
            head=head,
            system_prompt=self._instructions or None,
            archived=archived is True,
            pinned=starred is True or (isinstance(pinned, int | float) and pinned is not False),
            notes=self._notes(),
        )

    def _links(self, names: list[str]) -> tuple[list[int | None], list[int]]:
        """The parent of each node, and its rank among that one's children."""
        places = {name: at for at, name in enumerate(names)}
        said: list[int | None] = []
        listed: dict[int, int] = {}
        ranks = [0] * len(names)
        for at, name in enumerate(names):
            links = decoded(self._talk.mapping[name], _Links, f"{self._where}.mapping[{_name(name)!r}]")
            parent = _value(links.parent)
            said.append(places.get(parent) if isinstance(parent, str) else None)
            children = _value(links.children)
            for rank, child in enumerate(children if isinstance(children, list) else ()):
                place = places.get(child) if isinstance(child, str) else None
                if place is not None:
                    listed.setdefault(place, at)
                    ranks[place] = rank
        parents = [above if above is not None else listed.get(at) for at, above in enumerate(said)]
        return parents, ranks

    def _as_said(
        self, names: list[str], parents: list[int | None], order: list[int], ranks: list[int]
    ) -> list[int]:
        """`order` by time, then by rank; where no time is told, a node's is that of the one before it."""
        times: dict[int, datetime] = {}
        for at in order:
            above = parents[at]
            before = times[above] if above is not None else self._begun
            times[at] = max(before, _created(self._talk.mapping[names[at]]) or before)
        by_time = sorted(range(len(names)), key=lambda at: (times[at], ranks[at], at))
        place = {at: n for n, at in enumerate(by_time)}
        again: list[int | None] = []
        for at in by_time:
            above = parents[at]
            again.append(place[above] if above is not None else None)
        return [by_time[n] for n in parents_first(again)]

    def _node(self, name: str, before: _Context) -> _Context:
        """What follows the node may build on; its message, where it has one to keep, is added."""
        where = f"{self._where}.mapping[{_name(name)!r}].message"
        message = _message(decoded(self._talk.mapping[name], _Node, where).message, where)
        if message is None:
            return before
        at = _moment(message.get("create_time")) or before.at or self._begun
        content = _object(message.get("content"))
        kind = content.get("content_type")
        if kind == "thoughts":
            return _Context(before.parent, before.call, (*before.thoughts, *_thoughts(content)), before.at)
        if self._is_instruction(message, content):
            return before
        if (why := _reason_to_leave_out(message, kind)) is not None:
            self._left_out[why] += 1
            return before
        said = self._said(name, message, content, before)
        if said is None:
            return before
        return self._add(said, message, before, at, where)

    def _add(self, said: _Said, message: Json, before: _Context, at: datetime, where: str) -> _Context:
        metadata = _object(message.get("metadata"))
        by_model = said.role == "assistant"
        if by_model and before.thoughts:
            said.parts["reasoning_content"] = "\n\n".join(before.thoughts)
        content = storable(_MARKER.sub("", said.content))
        size = len(content.encode())
        if size > self._limits.content:
            raise Wrong(f"{where}: has {size:,} bytes of text; {self._limits.content:,} are allowed")
        parts = msgspec.json.encode(storable_json(said.parts)) if said.parts else b"null"
        if len(parts) > self._limits.parts:
            raise Wrong(
                f"{where}: has {len(parts):,} bytes beside its text; {self._limits.parts:,} are allowed"
            )
        place = self._into.written
        finished = _name(_object(metadata.get("finish_details")).get("type"))
        self._into.add(
            Line(
                role=said.role,
                content=content,
                created_at=at,
                parent=before.parent,
                parts=msgspec.Raw(parts),
                model=(_name(metadata.get("model_slug")) or self._model) if by_model else None,
                finish_reason=_FINISHED.get(finished, finished) if by_model and finished else None,
            )
        )
        calls = said.parts.get("tool_calls")
        call = calls[0]["id"] if calls else before.call if said.role == "tool" else None
        thoughts = () if by_model else before.thoughts
        return _Context(place, call, thoughts, at)

    def _said(self, name: str, message: Json, content: Json, before: _Context) -> _Said | None:
        role = _object(message.get("author")).get("role")
        text, assets = _text_of(content)
        for one in _list(_object(message.get("metadata")).get("attachments")):
            if isinstance(one, dict) and isinstance(one.get("name"), str):
                text = f"{text}\n[File: {one['name']}]".lstrip("\n")
                assets.append(_asset(one))
        beside: Json = {"assets": assets} if assets else {}
        to = message.get("recipient")
        if role == "assistant" and isinstance(to, str) and to not in {"all", ""}:
            call = {"id": f"call_{name}"[:64], "type": "function"}
            call["function"] = {"name": to, "arguments": _arguments(text, content)}  # type: ignore[assignment]
            return _Said("assistant", "", {"tool_calls": [call], **beside})
        if not text.strip():
            self._left_out["empty" if content else "unreadable"] += 1
            return None
        if role == "tool":
            author = _name(_object(message.get("author")).get("name"))
            named = {"tool_call_id": before.call} if before.call else {"name": author} if author else {}
            return _Said("tool", text, {**named, **beside})
        if role == "assistant" and content.get("content_type") == "code":
            language = content.get("language")
            text = fenced(text, language if isinstance(language, str) and language != "unknown" else "")
        return _Said(str(role), text, beside)

    def _is_instruction(self, message: Json, content: Json) -> bool:
        """Whether it holds custom instructions, which are kept."""
        metadata = _object(message.get("metadata"))
        given = _object(metadata.get("user_context_message_data"))
        found = [given.get(name) for name in _OLD_INSTRUCTIONS]
        if content.get("content_type") == "user_editable_context":
            found = [content.get(name) for name in _INSTRUCTIONS]
        elif not given and metadata.get("is_user_system_message") is not True:
            return False
        texts = [storable(text).strip() for text in found if isinstance(text, str) and text.strip()]
        if texts and not self._instructions:
            whole = "\n\n".join(texts).encode()[:MOST_SYSTEM_PROMPT]
            self._instructions = whole.decode(errors="ignore")
        return True

    def _notes(self) -> tuple[str, ...]:
        return tuple(
            f"{count:,} {'message' if count == 1 else 'messages'} left out: {why}"
            for why, count in sorted(self._left_out.items())
            if why != "empty"
        )


def _reason_to_leave_out(message: Json, kind: object) -> str | None:
    """Why a reader of the conversation never saw this message; None when they did."""
    metadata = _object(message.get("metadata"))
    role = _object(message.get("author")).get("role")
    if role not in {"system", "user", "assistant", "tool"}:
        return "of an unknown author"
    if metadata.get("is_visually_hidden_from_conversation") is True:
        return "hidden in ChatGPT"
    weight = message.get("weight")
    if isinstance(weight, int | float) and weight == 0:
        return "hidden in ChatGPT"
    if kind == "reasoning_recap":
        return "empty"
    return None


def _created(node: msgspec.Raw) -> datetime | None:
    """When the message of a node was written, where it has one that says so."""
    try:
        message = msgspec.json.decode(node, type=_Node).message
        return _moment(_value(msgspec.json.decode(message, type=_Timed).create_time))
    except (ValueError, RecursionError):
        return None


def _message(raw: msgspec.Raw, where: str) -> Json | None:
    """The message of a node; None where it has none."""
    value = decoded(raw, object, where)
    return value if isinstance(value, dict) else None


def _value(raw: msgspec.Raw) -> Any:
    """A member whose type is not to be relied on."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(value: object) -> str | None:
    """A short text that is safe to show."""
    if not isinstance(value, str):
        return None
    return "".join(one for one in storable(value[:MOST_NAME]) if one.isprintable()) or None


def _moment(seconds: object) -> datetime | None:
    """A time as ChatGPT writes it: seconds since 1970, or in some tools' copies a text or milliseconds."""
    if isinstance(seconds, str):
        try:
            told = datetime.fromisoformat(seconds)
            seconds = told.replace(tzinfo=told.tzinfo or UTC).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or abs(seconds) > 1e15:
        return None
    if seconds > _LATEST:
        seconds /= 1000
    if not _EARLIEST < seconds < _LATEST:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _thoughts(content: Json) -> Iterator[str]:
    found = content.get("thoughts")
    if isinstance(found, str) and found.strip():
        yield found.strip()
    for one in _list(found):
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            texts = [one.get("summary"), one.get("content")]
            if any(kept := [text.strip() for text in texts if isinstance(text, str) and text.strip()]):
                yield "\n".join(dict.fromkeys(kept))


def _text_of(content: Json) -> tuple[str, list[Json]]:
    """The text of a message's content, whatever its type, and what it names that is not text."""
    assets: list[Json] = []
    if isinstance(content.get("parts"), list):
        texts = [_part(part, assets) for part in content["parts"]]
        # A transcript stands for its recording.
        heard = any(isinstance(part, dict) and "text" in part for part in content["parts"])
        kept = [text for text, recording in texts if text and not (recording and heard)]
        return "\n".join(kept), assets
    names: tuple[str, ...]
    match content.get("content_type"):
        case "tether_quote" | "sonic_webpage":
            names = ("title", "url", "text")
        case "tether_browsing_display":
            names = ("summary", "result")
        case "system_error":
            names = ("name", "text")
        case _:
            names = ("text", "result", "content", "summary")
    found = [content.get(name) for name in names]
    return "\n".join(text for text in found if isinstance(text, str) and text.strip()), assets


def _part(part: object, assets: list[Json]) -> tuple[str, bool]:
    """The text of a part, and whether it stands for a recording."""
    if isinstance(part, str):
        return part, False
    if not isinstance(part, dict):
        return "", False
    kind = part.get("content_type")
    if isinstance(part.get("text"), str):
        return part["text"], False
    pointer = part.get("asset_pointer")
    if isinstance(pointer, str):
        assets.append(_asset(part))
        name = _name(pointer.rpartition("/")[2]) or "file"
        return (f"[Recording: {name}]", True) if kind in _RECORDINGS else (f"[Image: {name}]", False)
    if kind in _RECORDINGS:
        assets.append(_asset(part))
        return "[Recording]", True
    return "", False


def _asset(part: Json) -> Json:
    """What is told of a file in plain values."""
    return {
        name[:64]: value[:1000] if isinstance(value, str) else value
        for name, value in part.items()
        if isinstance(value, str | int | float) and name != "text"
    }


def _arguments(text: str, content: Json) -> str:
    """The arguments of a tool call as a JSON object: as they were written, or else as one member."""
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    name = "code" if content.get("content_type") == "code" else "input"
    return msgspec.json.encode({name: storable(text)}).decode()


def fenced(text: str, language: str) -> str:
    """`text` as a block of code in Markdown."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{_name(language) or ''}\n{text}\n{fence}"
