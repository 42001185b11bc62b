"""The export format: what is written is read back the same, and what is wrong with a file is said with its place."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baatcheet.exports.importing.normal import Limits
from baatcheet.exports.json_format import (
    NULL,
    ConversationEntry,
    Key,
    MessageEntry,
    ProjectEntry,
    Writing,
    conversation_line,
    message_line,
    placed,
    write,
)
from baatcheet.jobs.isolation_frames import Refused
from baatcheet.kit.pagination import microseconds
from tests.exports.uploads import NOW, Found, archive, beside, read_upload

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)


def name(number: int) -> str:
    return str(UUID(int=number))


@st.composite
def trees(draw: st.DrawFn) -> list[Key]:
    """Messages as a database may have them: any tree, any times, each branch going on with one child at most."""
    count = draw(st.integers(0, 25))
    keys: list[Key] = []
    gone_on: set[int] = set()
    for number in range(count):
        above = draw(st.one_of(st.none(), st.integers(0, number - 1))) if number else None
        branch = name(number)
        if above is not None and above not in gone_on:
            gone_on.add(above)
            branch = keys[above].branch
        at = draw(st.integers(0, 5))
        keys.append(Key(name(number), name(above) if above is not None else None, branch, at))
    return keys


def entry(key: Key, **more: Any) -> MessageEntry:
    fields: dict[str, Any] = {
        "id": key.id,
        "parent_id": key.parent,
        "role": "user",
        "content": f"message {key.id[-2:]}",
        "parts": NULL,
        "model": None,
        "token_count": 3,
        "finish_reason": None,
        "created_at": EARLY + timedelta(seconds=key.at),
    }
    return MessageEntry(**(fields | more))


def head(**more: Any) -> ConversationEntry:
    fields: dict[str, Any] = {
        "id": name(999),
        "title": "Trip to Hunza",
        "system_prompt": None,
        "model": None,
        "project": None,
        "archived": False,
        "tags": (),
        "pinned": False,
        "head_id": None,
        "created_at": EARLY,
        "updated_at": EARLY + timedelta(days=1),
    }
    return ConversationEntry(**(fields | more))


def written(folder: Path, *conversations: tuple[ConversationEntry, list[tuple[MessageEntry, str]]]) -> bytes:
    """The export file of these conversations: each message with its branch."""
    sources = []
    for at, (first, messages) in enumerate(conversations):
        path = folder / f"{at}.lines"
        lines = [message_line(one, branch, microseconds(one.created_at)) for one, branch in messages]
        path.write_bytes(b"".join([conversation_line(first), *lines]))
        sources.append(str(path))
    target = folder / "export.json"
    write(Writing(tuple(sources), str(target), NOW, 0), lambda _percent, _phrase: None)
    return target.read_bytes()


@given(trees(), st.randoms())
@settings(max_examples=150)
def test_messages_are_placed_after_their_parents_whatever_order_they_come_in(
    keys: list[Key], random: Any
) -> None:
    places = {key.id: at for at, key in enumerate(keys[i] for i in placed(keys))}
    assert len(places) == len(keys)
    for key in keys:
        assert key.parent is None or places[key.parent] < places[key.id]
        siblings = [other for other in keys if other.parent == key.parent and key.parent is not None]
        parent = next((other for other in keys if other.id == key.parent), None)
        if parent is not None and key.branch == parent.branch:
            assert places[key.id] == min(places[other.id] for other in siblings)
    shuffled = keys.copy()
    random.shuffle(shuffled)
    assert [shuffled[i].id for i in placed(shuffled)] == [keys[i].id for i in placed(keys)]


@given(trees())
@settings(max_examples=150)
def test_what_was_read_in_this_order_is_placed_in_it_again(keys: list[Key]) -> None:
    order = [keys[i] for i in placed(keys)]
    new = {key.id: name(1000 + at) for at, key in enumerate(order)}
    gone_on: dict[str, str] = {}
    again: list[Key] = []
    for key in order:  # as the database numbers and places what is inserted
        parent = new[key.parent] if key.parent else None
        branch = new[key.id]
        if parent is not None and parent not in gone_on:
            gone_on[parent] = branch
            branch = next(one.branch for one in again if one.id == parent)
        again.append(Key(new[key.id], parent, branch, key.at))
    assert placed(again) == list(range(len(again)))
    # The branches are the same ones: two messages shared one before if and only if they do now.
    before = [key.branch for key in order]
    after = [key.branch for key in again]
    assert [before.index(one) for one in before] == [after.index(one) for one in after]


@given(trees(), st.data())
@settings(max_examples=60)
def test_a_written_file_is_read_as_what_was_written(keys: list[Key], data: st.DataObject) -> None:
    messages = [
        entry(
            key,
            role=data.draw(st.sampled_from(["system", "developer", "user", "assistant", "tool"])),
            content=data.draw(storable),
            parts=msgspec.Raw(json.dumps(data.draw(st.sampled_from(PARTS))).encode()),
            model=data.draw(st.sampled_from([None, "openai/gpt-4o"])),
            finish_reason=data.draw(st.sampled_from([None, "stop"])),
        )
        for key in keys
    ]
    at = data.draw(st.sampled_from([None, *keys]))
    first = head(
        title=data.draw(storable.map(lambda text: "".join(one for one in text if one.isprintable()))),
        system_prompt=data.draw(st.one_of(st.none(), storable)),
        head_id=at.id if at is not None else None,
        project=ProjectEntry(name(7), "Thesis", "Sources"),
        archived=data.draw(st.booleans()),
        pinned=data.draw(st.booleans()),
        tags=tuple(data.draw(st.lists(st.sampled_from(["سفر", "work", "a b", "🏔"]), unique=True))),
    )
    with tempfile.TemporaryDirectory() as folder:
        text = written(
            Path(folder), (first, [(one, key.branch) for one, key in zip(messages, keys, strict=True)])
        )
        usable, lines = read_upload(Path(folder), text).only()
    order = [messages[i] for i in placed(keys)]
    ids = [one.id for one in order]
    assert [line.content for line in lines] == [one.content for one in order]
    assert [ids[line.parent] if line.parent is not None else None for line in lines] == [
        one.parent_id for one in order
    ]
    for line, one in zip(lines, order, strict=True):
        assert (line.role, line.model, line.finish_reason) == (one.role, one.model, one.finish_reason)
        assert line.created_at == one.created_at
        assert beside(line) == (msgspec.json.decode(one.parts) or None)
    assert usable.head == (ids.index(first.head_id) if first.head_id is not None else None)
    for field in (
        "title",
        "system_prompt",
        "model",
        "project",
        "archived",
        "pinned",
        "tags",
        "created_at",
        "updated_at",
    ):
        assert getattr(usable, field) == getattr(first, field), field


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
PARTS: list[Any] = [
    None,
    {"tool_calls": [CALL]},
    {"tool_call_id": "c1"},
    {
        "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}},
        ]
    },
    {"reasoning_content": "hm", "annotations": [], "something_newer": {"deep": [1, 2.5, None, True]}},
]


def one(messages: Any = (), **more: Any) -> dict[str, Any]:
    return {
        "format": "baatcheet.conversations",
        "version": 1,
        "conversations": [{"title": "x", "messages": messages, **more}],
    }


def said(id: str = "a", **more: Any) -> dict[str, Any]:  # noqa: A002 - the format's word
    return {"id": id, "role": "user", "content": "hello", **more}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"deep": value}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (one([said("a"), said("b"), said("a")]), "messages[2].id: is that of messages[0] too"),
        (
            one([said("a", parent_id="z")]),
            "messages[0].parent_id: there is no message 'z' in this conversation",
        ),
        (one([said("a", parent_id="a")]), "messages[0].parent_id: its parents lead back to itself"),
        (
            one([said("r"), said("a", parent_id="c"), said("b", parent_id="a"), said("c", parent_id="b")]),
            "messages[1].parent_id: its parents lead back to itself",
        ),
        (one([said(), said("b", role="robot")]), "messages[1].role: invalid enum value 'robot'"),
        (one([{"id": "a", "role": "user"}]), "messages[0]: object missing required field `content`"),
        (one([said(content=None)]), "messages[0].content: expected `str`, got `null`"),
        (
            one([said(content="a\x00b")]),
            "messages[0].content: contains a NUL character (U+0000) at position 1",
        ),
        (one([said(content="x" * 100_001)]), "messages[0].content: has 100,001 bytes; 100,000 are allowed"),
        (one([said(content="ب" * 50_001)]), "messages[0].content: has 100,002 bytes; 100,000 are allowed"),
        (one([said(created_at="yesterday")]), "messages[0].created_at: invalid RFC3339 encoded datetime"),
        (
            one([said(created_at="2026-01-01T00:00:00")]),
            "messages[0].created_at: expected `datetime` with a timezone component",
        ),
        (
            one([said(created_at="0001-01-01T00:00:00+05:00")]),
            "messages[0].created_at: is outside the calendar",
        ),
        (one([said(parts=[1])]), "messages[0].parts: must be an object or null"),
        (
            one([said(parts={"tool_calls": [{}]})]),
            "messages[0].parts.tool_calls[0]: must be an object with an id",
        ),
        (one([said(parts={"tool_calls": {}})]), "messages[0].parts.tool_calls: must be a list"),
        (
            one([said(parts={"tool_calls": [{"id": "c"}]})]),
            "messages[0].parts.tool_calls[0].function: must have a name and arguments, as texts",
        ),
        (
            one([said(parts={"content": ["x"]})]),
            "messages[0].parts.content[0]: must be an object with a type",
        ),
        (
            one([said(parts={"content": [{"type": "text"}]})]),
            "messages[0].parts.content[0].text: must be a text",
        ),
        (one([said(parts={"name": 5})]), "messages[0].parts.name: must be a text"),
        (
            one([said(parts={"x": {"y": ["\x00"]}})]),
            "messages[0].parts.x.y[0]: contains a NUL character (U+0000) at position 0",
        ),
        (
            one([said(parts={"x\x00": 1})]),
            "messages[0].parts: a name contains a NUL character (U+0000) at position 1",
        ),
        (one([said(parts=nested(70))]), "is nested more than 64 levels deep"),
        (
            one([said(parts={"x": "y" * 200_001})]),
            "messages[0].parts: has 200,010 bytes; 200,000 are allowed",
        ),
        (one([said(model="m" * 201)]), "messages[0].model: has 201 characters; 200 are allowed"),
        (one([5]), "messages[0]: expected `object`, got `int`"),
        (one([said()], head_id="z"), "head_id: there is no message 'z' in this conversation"),
        (one(title="a\nb"), "title: contains a control character (U+000A) at position 1"),
        (one(title=5), "title: expected `str`, got `int`"),
        (one(title="t" * 501), "title: has 501 characters; 500 are allowed"),
        (
            one(system_prompt="s" * (1024 * 1024 + 1)),
            "system_prompt: has 1,048,577 bytes; 1,048,576 are allowed",
        ),
        (one(archived="yes"), "archived: expected `bool`, got `str`"),
        (one(tags=["a", " "]), "tags[1]: has nothing in it that can be seen"),
        (one(tags=["x"] * 21), "tags: 21 of them; 20 are allowed"),
        (one({}), "messages: expected `array`, got `object`"),
        (one(project={"name": " "}), "project.name: has nothing in it that can be seen"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said_with_its_place(
    tmp_path: Path, content: dict[str, Any], problem: str
) -> None:
    content["conversations"].append({"title": "good", "messages": [said()]})
    found = read_upload(tmp_path, content)
    assert [entry.title for entry in found.usable] == ["good"]
    (told,) = found.problems
    assert told.startswith("conversations[0]")
    assert problem in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**one(), "version": 2}, "is of version 2 .* reads up to 1"),
        ({**one(), "version": "1"}, "version: must be a whole number"),
        ({**one(), "version": True}, "version: must be a whole number"),
        ({**one(), "version": 0}, "version: must be a whole number"),
        ({**one(), "conversations": {}}, "conversations: expected `array`, got `object`"),
        ({"format": "baatcheet.conversations"}, "version: must be a whole number"),
        (json.dumps(one([said()])).replace("hello", "\\ud83c").encode(), "unpaired surrogate"),
        (json.dumps(one([said()])).encode()[:-1], "not valid JSON"),
        (json.dumps(one([said()])).encode() + b"}", "not valid JSON"),
        (b'{"format": "baatcheet.conversations", "conversations": ' + b"[" * 1_000_000, "nested too deeply"),
    ],
)
def test_a_file_that_can_not_be_read_at_all_is_refused_in_words(
    tmp_path: Path, content: object, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        read_upload(tmp_path, content)


def test_a_text_that_is_not_utf_8_is_said_with_its_place(tmp_path: Path) -> None:
    text = json.dumps(one([said(), said("b", content="HERE")])).encode().replace(b"HERE", b"\xff")
    assert read_upload(tmp_path, text).problems == [
        "conversations[0].messages[1]: is not UTF-8: invalid start byte"
    ]


def test_a_file_written_by_hand_needs_no_more_than_ids_roles_and_texts(tmp_path: Path) -> None:
    content = one([said("b", parent_id="a", role="assistant"), said("a"), said("c")])
    del content["conversations"][0]["title"]
    usable, lines = read_upload(tmp_path, b"\xef\xbb\xbf" + json.dumps(content).encode()).only()
    assert [(line.role, line.parent) for line in lines] == [("user", None), ("assistant", 0), ("user", None)]
    assert usable.head == 2, "the last in the file"
    assert usable.created_at == lines[0].created_at == NOW


def test_a_conversation_without_an_open_branch_stays_without_one(tmp_path: Path) -> None:
    usable, _ = read_upload(tmp_path, one([said()], head_id=None)).only()
    assert usable.head is None


def test_unknown_members_are_passed_over(tmp_path: Path) -> None:
    content = one([said(mood="good")], colour="red") | {"weather": "fine"}
    assert len(read_upload(tmp_path, content).only()[1]) == 1


def test_the_same_conversation_has_the_same_digest_whatever_its_ids(tmp_path: Path) -> None:
    def digest(folder: str, *messages: Any, **more: Any) -> str:
        return read_upload(tmp_path / folder, one(list(messages), **more)).usable[0].digest

    first = digest("a", said("a"), said("b", parent_id="a"))
    assert digest("b", said("x"), said("y", parent_id="x"), id="other") == first
    assert digest("c", said("a"), said("b")) != first
    assert digest("d", said("a"), said("b", parent_id="a"), title="y") != first


def test_an_archive_of_all_ones_data_is_read_whole(tmp_path: Path) -> None:
    files = {
        "export.json": {"format": "baatcheet.archive", "version": 1},
        "projects.json": [],
        "conversations/b.json": one([said()]),
        "conversations/a.json": one([said(), said("b")]),
    }
    found: Found = read_upload(tmp_path, archive(files))
    assert [entry.messages for entry in found.usable] == [2, 1]
    files["conversations/a.json"] = one([said(role="x")])
    found = read_upload(tmp_path, archive(files))
    assert found.problems == [
        "conversations/a.json: conversations[0].messages[0].role: invalid enum value 'x'"
    ]


def test_a_hundred_thousand_messages_in_a_row_are_read_in_little_memory(tmp_path: Path) -> None:
    count = 100_000
    messages = [said(str(n), parent_id=str(n - 1) if n else None) for n in range(count)]
    usable, lines = read_upload(tmp_path, one(messages), limits=Limits(1000, 1000)).only()
    assert usable.messages == count
    assert lines[-1].parent == count - 2
