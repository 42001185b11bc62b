"""Reading BaatCheet's own export format, strictly: what is wrong with a conversation is told with its place."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from baatcheet.exports.importing.normal import Limits, Line, Normalized, Wrong
from baatcheet.exports.importing.trees import Loop, parents_first
from baatcheet.exports.json_format import FORMAT, NULL, VERSION, ProjectEntry
from baatcheet.kit.text import is_invisible, uncontrolled, unstorable

MOST_MESSAGES: Final = 1_000_000  # of one conversation
MOST_TITLE: Final = 500  # characters
MOST_NAME: Final = 200
MOST_TAGS: Final = 20
MOST_TAG: Final = 64
MOST_DESCRIPTION: Final = 10_000
MOST_SYSTEM_PROMPT: Final = 1024 * 1024  # bytes
DEEPEST: Final = 64  # levels of what a message has beside its text

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<where>.*)`)?$", re.DOTALL)
# Of a text without escaped backslashes.
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
Shape = TypeVar("Shape")
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Project(msgspec.Struct):
    name: str
    id: str = ""
    description: str = ""


class _Conversation(msgspec.Struct):
    id: str = ""
    title: str = ""
    system_prompt: str | None = None
    model: str | None = None
    project: _Project | None = None
    archived: bool = False
    pinned: bool = False
    tags: list[str] = []
    head_id: str | msgspec.UnsetType | None = msgspec.UNSET
    created_at: Moment | None = None
    updated_at: Moment | None = None
    messages: list[msgspec.Raw] = []


class _Key(msgspec.Struct):
    id: str
    parent_id: str | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    parts: msgspec.Raw = NULL
    model: str | None = None
    finish_reason: str | None = None
    created_at: Moment | None = None


class _Named(msgspec.Struct):
    """What a conversation that can't be used is told by."""

    id: str = ""
    title: str = ""


def decoded(raw: Any, shape: type[Shape], where: str) -> Shape:
    """The JSON in `raw` as a `shape`. Raises Wrong, which says where it is not."""
    try:
        return msgspec.json.decode(raw, type=shape)
    except UnicodeDecodeError as error:
        raise Wrong(f"{where}: is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise Wrong(f"{where}: is nested too deeply") from None
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        assert found is not None
        what = found["what"][:1].lower() + found["what"][1:]
        raise Wrong(f"{where}{found['where'] or ''}: {what}") from None
    except msgspec.DecodeError as error:
        hint = "; an unpaired surrogate escape is not valid" if has_unpaired(raw) else ""
        raise Wrong(f"{where}: is not valid JSON: {error}{hint}") from None


def has_unpaired(raw: Any) -> bool:
    """Whether there is a surrogate escape in the JSON in `raw` without its other half."""
    # Three passes, each of which looks at every byte once: one expression for all of it needs a possessive
    # quantifier, which Python before 3.11.5 gets wrong (gh-106052).
    unescaped = bytes(raw).replace(rb"\\", b".")
    return _SURROGATE.search(_PAIR.sub(b".", unescaped)) is not None


def check_version(version: object) -> None:
    """Raises Wrong unless it is one that can be read."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Wrong(f"version: must be a whole number; this server reads version {VERSION}")
    if version > VERSION:
        raise Wrong(
            f"version: the file is of version {version} of {FORMAT}; this server reads up to {VERSION}. "
            "Import it where it was made, or with a newer BaatCheet"
        )


def read_conversation(
    raw: Any, where: str, into: Normalized, limits: Limits, tick: Callable[[], None]
) -> None:
    """Add one conversation, or the reason why it can't be used. `tick` is called for every message."""
    into.begin()
    try:
        _read(raw, where, into, limits, tick)
    except Wrong as problem:
        named = _named(raw)
        into.refuse(source_id=named.id, title=named.title, problem=str(problem))


def _named(raw: Any) -> _Named:
    try:
        named = msgspec.json.decode(raw, type=_Named)
    except (ValueError, RecursionError):
        return _Named()
    return _Named(_shown(named.id), _shown(named.title))


def _shown(text: str) -> str:
    return "".join(one for one in text[:MOST_TITLE] if one.isprintable())


def _read(raw: Any, where: str, into: Normalized, limits: Limits, tick: Callable[[], None]) -> None:
    head = decoded(raw, _Conversation, where)
    title = _line(head.title, MOST_TITLE, f"{where}.title")
    prompt = _system_prompt(head.system_prompt, f"{where}.system_prompt")
    model = _model(head.model, f"{where}.model")
    project = _project(head.project, f"{where}.project")
    if len(head.messages) > MOST_MESSAGES:
        raise Wrong(f"{where}.messages: there are more than {MOST_MESSAGES:,}")
    keys = [decoded(message, _Key, f"{where}.messages[{at}]") for at, message in enumerate(head.messages)]
    parents = _parents(keys, where)
    try:
        order = parents_first(parents)
    except Loop as loop:
        raise Wrong(f"{where}.messages[{loop.place}].parent_id: its parents lead back to itself") from None
    last = _moment(head.created_at, f"{where}.created_at") or into.now
    created_at = last
    new = [0] * len(order)
    for place, at in enumerate(order):
        new[at] = place
        there = f"{where}.messages[{at}]"
        message = decoded(head.messages[at], _Message, there)
        above = parents[at]
        last = _moment(message.created_at, f"{there}.created_at") or last
        into.add(
            Line(
                role=message.role,
                content=_content(message.content, limits, f"{there}.content"),
                created_at=last,
                parent=new[above] if above is not None else None,
                parts=checked_parts(message.parts, limits, f"{there}.parts"),
                model=_model(message.model, f"{there}.model"),
                finish_reason=_text(message.finish_reason, MOST_NAME, f"{there}.finish_reason"),
            )
        )
        tick()
    into.keep(
        source_id=_shown(head.id),
        title=title,
        created_at=created_at,
        updated_at=_moment(head.updated_at, f"{where}.updated_at") or max(created_at, last),
        head=_head(head.head_id, keys, new, where),
        system_prompt=prompt,
        model=model,
        project=project,
        archived=head.archived,
        pinned=head.pinned,
        tags=_tags(head.tags, f"{where}.tags"),
    )


def _tags(tags: list[str], where: str) -> tuple[str, ...]:
    if len(tags) > MOST_TAGS:
        raise Wrong(f"{where}: {len(tags)} of them; {MOST_TAGS} are allowed")
    found = [_line(tag.strip(), MOST_TAG, f"{where}[{at}]") for at, tag in enumerate(tags)]
    for at, tag in enumerate(found):
        if is_invisible(tag):
            raise Wrong(f"{where}[{at}]: has nothing in it that can be seen")
    return tuple(dict.fromkeys(found))


def _parents(keys: list[_Key], where: str) -> list[int | None]:
    places: dict[str, int] = {}
    for at, key in enumerate(keys):
        if key.id in places:
            raise Wrong(f"{where}.messages[{at}].id: is that of messages[{places[key.id]}] too")
        places[key.id] = at
    parents: list[int | None] = []
    for at, key in enumerate(keys):
        if key.parent_id is not None and key.parent_id not in places:
            shown = _shown(key.parent_id)[:64]
            raise Wrong(
                f"{where}.messages[{at}].parent_id: there is no message {shown!r} in this conversation"
            )
        parents.append(places[key.parent_id] if key.parent_id is not None else None)
    return parents


def _head(head: str | msgspec.UnsetType | None, keys: list[_Key], new: list[int], where: str) -> int | None:
    if head is msgspec.UNSET:  # written by hand: its end is where it ends
        return new[-1] if keys else None
    if head is None:
        return None
    for at, key in enumerate(keys):
        if key.id == head:
            return new[at]
    raise Wrong(f"{where}.head_id: there is no message {_shown(str(head))[:64]!r} in this conversation")


def checked_parts(raw: msgspec.Raw, limits: Limits, where: str) -> msgspec.Raw:
    """What a message has beside its text, if a chat can go on with it. Raises Wrong."""
    size = len(memoryview(raw))
    if size > limits.parts:
        raise Wrong(f"{where}: has {size:,} bytes; {limits.parts:,} are allowed")
    value = decoded(raw, object, where)
    if value is None:
        return NULL
    if not isinstance(value, dict):
        raise Wrong(f"{where}: must be an object or null")
    _check_json(value, where)
    _check_known(value, where)
    return raw if value else NULL


def _check_json(value: object, where: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise Wrong(f"{where}: is nested more than {DEEPEST} levels deep")
    if isinstance(value, str):
        if problem := unstorable(value):
            raise Wrong(f"{where}: {problem}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            _check_json(item, f"{where}[{at}]", depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if problem := unstorable(name):
                raise Wrong(f"{where}: a name {problem}")
            _check_json(item, f"{where}.{name[:64]}", depth + 1)


def _check_known(parts: dict[str, Any], where: str) -> None:
    """That the members which a chat sends on are what a provider takes."""
    for name in ("tool_call_id", "name", "refusal", "reasoning_content"):
        if not isinstance(parts.get(name, ""), str):
            raise Wrong(f"{where}.{name}: must be a text")
    for at, part in enumerate(_listed(parts, "content", where)):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise Wrong(f"{where}.content[{at}]: must be an object with a type")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise Wrong(f"{where}.content[{at}].text: must be a text")
    for at, call in enumerate(_listed(parts, "tool_calls", where)):
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            raise Wrong(f"{where}.tool_calls[{at}]: must be an object with an id")
        if call.get("type", "function") == "function":
            function = call.get("function")
            if not isinstance(function, dict) or not all(
                isinstance(function.get(name), str) for name in ("name", "arguments")
            ):
                raise Wrong(f"{where}.tool_calls[{at}].function: must have a name and arguments, as texts")


def _listed(parts: dict[str, Any], name: str, where: str) -> list[Any]:
    value = parts.get(name, [])
    if not isinstance(value, list):
        raise Wrong(f"{where}.{name}: must be a list")
    return value


def _content(content: str, limits: Limits, where: str) -> str:
    if len(content) * 4 > limits.content and (size := len(content.encode())) > limits.content:
        raise Wrong(f"{where}: has {size:,} bytes; {limits.content:,} are allowed")
    if problem := unstorable(content):
        raise Wrong(f"{where}: {problem}")
    return content


def _text(text: str | None, most: int, where: str) -> str | None:
    if text is None:
        return None
    if len(text) > most:
        raise Wrong(f"{where}: has {len(text):,} characters; {most:,} are allowed")
    if problem := unstorable(text):
        raise Wrong(f"{where}: {problem}")
    return text


def _line(text: str, most: int, where: str) -> str:
    if problem := uncontrolled(text):
        raise Wrong(f"{where}: {problem}")
    return _text(text, most, where) or ""


def _model(model: str | None, where: str) -> str | None:
    return _text(model, MOST_NAME, where) or None


def _system_prompt(prompt: str | None, where: str) -> str | None:
    if prompt is not None and (size := len(prompt.encode())) > MOST_SYSTEM_PROMPT:
        raise Wrong(f"{where}: has {size:,} bytes; {MOST_SYSTEM_PROMPT:,} are allowed")
    return _text(prompt, MOST_SYSTEM_PROMPT, where)


def _project(project: _Project | None, where: str) -> ProjectEntry | None:
    if project is None:
        return None
    name = _line(project.name, MOST_NAME, f"{where}.name")
    if is_invisible(name):
        raise Wrong(f"{where}.name: has nothing in it that can be seen")
    description = _text(project.description, MOST_DESCRIPTION, f"{where}.description") or ""
    return ProjectEntry(_shown(project.id), name, description)


def _moment(moment: datetime | None, where: str) -> datetime | None:
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Wrong(f"{where}: is outside the calendar") from None
