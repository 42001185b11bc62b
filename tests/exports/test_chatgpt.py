"""ChatGPT's exports: what is shown there is there here, branches, times and all."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from baatcheet.jobs.isolation_frames import Refused
from tests.exports.chatgpt_corpus import BEGAN, Json, branched, chain, conversation, message, node
from tests.exports.uploads import NOW, Found, archive, beside, read_upload

START = datetime.fromtimestamp(BEGAN, UTC)


def texts(found: Found) -> list[tuple[str, str]]:
    _, lines = found.only()
    return [(line.role, line.content) for line in lines]


def test_a_plain_conversation_is_kept_with_its_times_models_and_ends(tmp_path: Path) -> None:
    found = read_upload(
        tmp_path,
        [
            conversation(
                chain(
                    message("system", "", at=None),
                    message("user", "Where is Attabad?", at=BEGAN + 1.5),
                    message(
                        "assistant",
                        "In **Gojal**.",
                        at=BEGAN + 3,
                        metadata={"model_slug": "gpt-4", "finish_details": {"type": "max_tokens"}},
                    ),
                    message(
                        "assistant", "And more.", at=BEGAN + 4, metadata={"finish_details": {"type": "stop"}}
                    ),
                )
            )
        ],
    )
    entry, lines = found.only()
    assert (entry.title, entry.source_id) == ("Trip to Hunza", "6c0f4b52-2f5f-4d0a-9a53-0c3c6ed1f0aa")
    assert (entry.created_at, entry.updated_at) == (START, START + timedelta(minutes=10))
    assert (entry.archived, entry.pinned, entry.model, entry.system_prompt) == (False, False, None, None)
    assert texts(found) == [
        ("user", "Where is Attabad?"),
        ("assistant", "In **Gojal**."),
        ("assistant", "And more."),
    ]
    assert [line.parent for line in lines] == [None, 0, 1]
    assert [line.created_at - START for line in lines] == [timedelta(seconds=s) for s in (1.5, 3, 4)]
    assert [line.model for line in lines] == [None, "gpt-4", "gpt-4o"]
    assert [line.finish_reason for line in lines] == [None, "length", "stop"]
    assert entry.head == 2
    assert found.read.source == "chatgpt"


@pytest.mark.parametrize("children", [True, False])
def test_branches_stay_branches_and_the_open_one_stays_open(tmp_path: Path, children: bool) -> None:
    nodes = branched(children=children)
    for current, shown in (("a3", "then this"), ("a1", "first try"), ("q3", "edited: and then?")):
        entry, lines = read_upload(tmp_path / current, [conversation(nodes, current=current)]).only()
        assert len(lines) == 6
        parents = {line.content: line.parent for line in lines}
        by_text = {line.content: at for at, line in enumerate(lines)}
        assert parents["first try"] == parents["second try"] == by_text["question"]
        assert parents["and then?"] == parents["edited: and then?"] == by_text["second try"]
        assert entry.head is not None
        assert lines[entry.head].content == shown


def test_the_nodes_may_stand_in_any_order(tmp_path: Path) -> None:
    nodes = branched(children=True)
    one = read_upload(tmp_path / "a", [conversation(nodes, current="a3")])
    other = read_upload(tmp_path / "b", [conversation(nodes[::-1], current="a3")])
    assert one.lines == other.lines
    assert one.usable[0].digest == other.usable[0].digest


def test_what_was_never_shown_is_stepped_over(tmp_path: Path) -> None:
    hidden = {"is_visually_hidden_from_conversation": True}
    found = read_upload(
        tmp_path,
        [
            conversation(
                chain(
                    message("system", "", at=None, metadata=hidden),
                    message("system", "You are ChatGPT.", metadata=hidden),
                    message("user", "hello", at=BEGAN + 1),
                    message("assistant", "", at=BEGAN + 2),
                    None,
                    message("assistant", {"content_type": "reasoning_recap", "content": "Thought for 3s"}),
                    message("tool", "browsing…", name="browser", weight=0.0),
                    message("critic", "not bad"),
                    message("assistant", "hi", at=BEGAN + 3),
                )
            )
        ],
    )
    entry, lines = found.only()
    assert texts(found) == [("user", "hello"), ("assistant", "hi")]
    assert [line.parent for line in lines] == [None, 0]
    assert entry.notes == (
        "3 messages left out: hidden in ChatGPT",
        "1 message left out: of an unknown author",
    )


def test_a_branch_that_ends_in_something_hidden_ends_before_it(tmp_path: Path) -> None:
    nodes = chain(
        message("user", "hello", at=BEGAN + 1),
        message("assistant", "hi", at=BEGAN + 2),
        message("tool", "memory", metadata={"is_visually_hidden_from_conversation": True}),
    )
    entry, lines = read_upload(tmp_path, [conversation(nodes)]).only()
    assert entry.head is not None
    assert lines[entry.head].content == "hi"


@pytest.mark.parametrize(
    "given",
    [
        message(
            "user",
            {
                "content_type": "user_editable_context",
                "user_profile": "I live in Gilgit.",
                "user_instructions": "Answer briefly.",
            },
            metadata={"is_visually_hidden_from_conversation": True, "is_user_system_message": True},
        ),
        message(
            "system",
            "",
            metadata={
                "is_user_system_message": True,
                "user_context_message_data": {
                    "about_user_message": "I live in Gilgit.",
                    "about_model_message": "Answer briefly.",
                },
            },
        ),
    ],
)
def test_custom_instructions_become_the_system_prompt(tmp_path: Path, given: Json) -> None:
    found = read_upload(tmp_path, [conversation(chain(given, message("user", "hello")))])
    entry, _ = found.only()
    assert entry.system_prompt == "I live in Gilgit.\n\nAnswer briefly."
    assert texts(found) == [("user", "hello")]


def test_a_call_of_a_tool_and_its_result_belong_together(tmp_path: Path) -> None:
    found = read_upload(
        tmp_path,
        [
            conversation(
                chain(
                    message("user", "6 times 7?"),
                    message(
                        "assistant",
                        {"content_type": "code", "language": "python", "text": "print(6 * 7)"},
                        recipient="python",
                    ),
                    message("tool", {"content_type": "execution_output", "text": "42"}, name="python"),
                    message("assistant", "It is 42."),
                    message(
                        "assistant",
                        {"content_type": "code", "language": "unknown", "text": '{"query": "hunza"}'},
                        recipient="web.search",
                    ),
                    message("tool", "Found it", name="web.search"),
                    message("tool", "no call before", name="file_search"),
                )
            )
        ],
    )
    _, lines = found.only()
    (call,) = beside(lines[1])["tool_calls"]
    assert call["function"] == {"name": "python", "arguments": '{"code":"print(6 * 7)"}'}
    assert (lines[1].role, lines[1].content) == ("assistant", "")
    assert (lines[2].role, lines[2].content, beside(lines[2])) == ("tool", "42", {"tool_call_id": call["id"]})
    assert beside(lines[4])["tool_calls"][0]["function"]["arguments"] == '{"query": "hunza"}'
    assert beside(lines[5])["tool_call_id"] == beside(lines[4])["tool_calls"][0]["id"]


def test_a_tool_that_nobody_called_is_named(tmp_path: Path) -> None:
    _, lines = read_upload(
        tmp_path,
        [conversation(chain(message("user", "hello"), message("tool", "found", name="file_search")))],
    ).only()
    assert beside(lines[1]) == {"name": "file_search"}


def test_thoughts_go_with_the_reply_that_they_led_to(tmp_path: Path) -> None:
    thoughts = {
        "content_type": "thoughts",
        "thoughts": [{"summary": "Adding", "content": "2 and 2 make 4"}, {"summary": "Sure", "content": ""}],
        "source_analysis_msg_id": "x",
    }
    found = read_upload(
        tmp_path,
        [
            conversation(
                chain(
                    message("user", "2 + 2?"),
                    message("assistant", thoughts),
                    message("assistant", {"content_type": "reasoning_recap", "content": "Thought for 2s"}),
                    message("assistant", "4"),
                    message("user", "thanks"),
                    message("assistant", "welcome"),
                )
            )
        ],
    )
    _, lines = found.only()
    assert beside(lines[1]) == {"reasoning_content": "Adding\n2 and 2 make 4\n\nSure"}
    assert [beside(line) for line in lines[2:]] == [None, None]


def test_pictures_recordings_and_files_are_named_and_kept_beside(tmp_path: Path) -> None:
    picture = {
        "content_type": "image_asset_pointer",
        "asset_pointer": "sediment://file_0000000032",
        "size_bytes": 221373,
        "width": 708,
        "height": 1536,
        "fovea": None,
        "metadata": {"dalle": None, "sanitized": True},
    }
    recording = {
        "content_type": "audio_asset_pointer",
        "asset_pointer": "file-service://file-abc",
        "format": "wav",
    }
    heard = {"content_type": "audio_transcription", "text": "How high is Rakaposhi?", "direction": "in"}
    found = read_upload(
        tmp_path,
        [
            conversation(
                chain(
                    message("user", {"content_type": "multimodal_text", "parts": [picture, "What is this?"]}),
                    message("user", {"content_type": "multimodal_text", "parts": [heard, recording]}),
                    message("user", {"content_type": "multimodal_text", "parts": [recording]}),
                    message(
                        "user",
                        "Read this",
                        metadata={
                            "attachments": [
                                {"id": "file-9", "name": "نقشہ.pdf", "mime_type": "application/pdf"}
                            ]
                        },
                    ),
                )
            )
        ],
    )
    _, lines = found.only()
    assert [line.content for line in lines] == [
        "[Image: file_0000000032]\nWhat is this?",
        "How high is Rakaposhi?",
        "[Recording: file-abc]",
        "Read this\n[File: نقشہ.pdf]",
    ]
    assert beside(lines[0])["assets"] == [
        {
            "content_type": "image_asset_pointer",
            "asset_pointer": "sediment://file_0000000032",
            "size_bytes": 221373,
            "width": 708,
            "height": 1536,
        }
    ]
    assert beside(lines[3])["assets"][0]["id"] == "file-9"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"content_type": "code", "language": "python", "text": "x = 1"}, "```python\nx = 1\n```"),
        ({"content_type": "code", "text": "a ``` b"}, "````\na ``` b\n````"),
        (
            {
                "content_type": "tether_quote",
                "url": "https://x.org",
                "title": "T",
                "text": "quoted",
                "domain": "x.org",
            },
            "T\nhttps://x.org\nquoted",
        ),
        (
            {
                "content_type": "sonic_webpage",
                "url": "https://x.org",
                "title": "T",
                "text": "page",
                "snippet": "s",
            },
            "T\nhttps://x.org\npage",
        ),
        (
            {"content_type": "tether_browsing_display", "result": "found", "summary": "", "assets": None},
            "found",
        ),
        ({"content_type": "system_error", "name": "RobotsError", "text": "denied"}, "RobotsError\ndenied"),
        ({"content_type": "computer_output", "text": "ls"}, "ls"),
        ({"content_type": "text", "parts": ["one", "two", None, 3]}, "one\ntwo"),
        ({"content_type": "something_new", "text": "still text"}, "still text"),
        (
            {"content_type": "text", "parts": ["As the paper says \ue200cite\ue202turn0search1\ue201."]},
            "As the paper says .",
        ),
    ],
)
def test_every_kind_of_content_has_its_text(tmp_path: Path, content: Json, text: str) -> None:
    found = read_upload(tmp_path, [conversation(chain(message("assistant", content)))])
    assert texts(found) == [("assistant", text)]


def test_messages_need_not_have_metadata_weights_recipients_or_times(tmp_path: Path) -> None:
    bare = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["bare"]}}
    odd: Json = {"author": None, "content": "text", "metadata": [], "weight": "heavy", "recipient": 3}
    reply: Json = {"author": {"role": "assistant"}, "content": {"parts": ["reply"]}, "metadata": None}
    found = read_upload(tmp_path, [conversation(chain(bare, odd, reply))])
    _, lines = found.only()
    assert texts(found) == [("user", "bare"), ("assistant", "reply")]
    assert [line.created_at for line in lines] == [START, START]
    assert lines[1].model == "gpt-4o"


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        (1_700_000_001, START.replace(microsecond=0) + timedelta(seconds=1)),
        (1_700_000_001_500, START.replace(microsecond=0) + timedelta(seconds=1.5)),
        ("2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (None, START),
        ("yesterday", START),
        (-5, START),
        (1e300, START),
        (10**400, START),
        (True, START),
    ],
)
def test_a_time_may_be_told_in_several_ways_or_not(tmp_path: Path, told: Any, moment: datetime) -> None:
    _, lines = read_upload(tmp_path, [conversation(chain(message("user", "hello", at=told)))]).only()
    assert lines[0].created_at == moment


def test_a_conversation_that_tells_no_time_was_begun_now(tmp_path: Path) -> None:
    entry, lines = read_upload(
        tmp_path, [conversation(chain(message("user", "hello")), create_time=None, update_time=None)]
    ).only()
    assert entry.created_at == lines[0].created_at == NOW


def test_archived_and_starred_stay_so(tmp_path: Path) -> None:
    nodes = chain(message("user", "hello"))
    found = read_upload(
        tmp_path,
        [
            conversation(nodes, is_archived=True),
            conversation(nodes, is_starred=True, title=None),
            conversation(nodes, pinned_time=1_700_000_000.0, title="a\nb\x00c"),
        ],
    )
    assert [(one.archived, one.pinned, one.title) for one in found.usable] == [
        (True, False, "Trip to Hunza"),
        (False, True, ""),
        (False, True, "a b\ufffdc"),
    ]


@pytest.mark.parametrize(
    "shape",
    [
        lambda talks: talks,
        lambda talks: {"conversations": talks},
        lambda talks: talks[0],
        lambda talks: archive(
            {"conversations.json": talks, "chat.html": b"<html>", "user.json": {"id": "u"}}
        ),
        lambda talks: archive(
            {"export/conversations.json": talks, "__MACOSX/export/._conversations.json": b"\0"}
        ),
        lambda talks: archive({"conversations-000.json": talks, "export_manifest.json": {}}),
    ],
    ids=["list", "object", "single", "zip", "zip in a folder", "sharded"],
)
def test_a_file_may_have_any_of_the_known_shapes(tmp_path: Path, shape: Any) -> None:
    talks = [conversation(chain(message("user", "hello")))]
    assert texts(read_upload(tmp_path, shape(talks))) == [("user", "hello")]


def test_the_shards_of_an_archive_are_read_in_their_order(tmp_path: Path) -> None:
    shards = {
        f"conversations-{number:03d}.json": [
            conversation(chain(message("user", str(number))), title=str(number))
        ]
        for number in (2, 0, 1)
    }
    found = read_upload(tmp_path, archive(shards))
    assert [(one.place, one.title) for one in found.usable] == [(0, "0"), (1, "1"), (2, "2")]


def test_half_an_emoji_is_replaced_and_whole_ones_stay(tmp_path: Path) -> None:
    talks = [
        conversation(chain(message("user", "whole 🏔 \\ud83d, half HALF"), message("assistant", "NUL\x00")))
    ]
    text = json.dumps(talks).replace("HALF", "\\ud83c")
    found = read_upload(tmp_path, text.encode())
    assert texts(found) == [("user", "whole 🏔 \\ud83d, half \ufffd"), ("assistant", "NUL\ufffd")]


def test_one_bad_conversation_does_not_keep_the_others_out(tmp_path: Path) -> None:
    good = conversation(chain(message("user", "hello")))
    loop = conversation([node("a", "b", message("user", "x")), node("b", "a", message("user", "y"))])
    empty = conversation(chain(message("system", "")))
    found = read_upload(tmp_path, [good, loop, {"mapping": []}, empty, 5, good])
    assert [one.place for one in found.usable] == [0, 5]
    assert found.problems == [
        "conversations[1].mapping['a']: its parents lead back to itself",
        "conversations[2].mapping: expected `object`, got `array`",
        "conversations[3]: there is no message in it that was shown",
        "conversations[4]: expected `object`, got `int`",
    ]


def test_a_message_that_is_too_long_is_named(tmp_path: Path) -> None:
    found = read_upload(tmp_path, [conversation(chain(message("user", "x" * 100_001)))])
    assert found.problems == [
        "conversations[0].mapping['n0'].message: has 100,001 bytes of text; 100,000 are allowed"
    ]


def test_a_parent_that_is_not_there_is_the_top(tmp_path: Path) -> None:
    nodes = [
        node("a", "client-created-root", message("user", "hello")),
        node("b", "a", message("assistant", "hi")),
    ]
    entry, lines = read_upload(tmp_path, [conversation(nodes, current="gone")]).only()
    assert [line.parent for line in lines] == [None, 0]
    assert entry.head == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello", "neither JSON"),
        (b"\xff\xfe[\x00", "neither JSON"),
        (b"[{}", "not valid JSON"),
        (b"[]", "no conversation in this file"),
        (b'[{"uuid": "x", "chat_messages": []}]', "Claude"),
        (b'[{"text": "x"}]', "not one of ChatGPT's"),
        (b'{"a": 1}', "has no conversations"),
        (b'{"format": "somebody.else"}', "'somebody.else' can't be imported"),
        (b'[{"mapping": {"a": ' + b"[" * 100_000, "nested too deeply"),
        (b"PK\x03\x04 and no more", "damaged"),
        (archive({"chat.html": b"<html>"}), "no conversations in the archive"),
        (archive({"conversations.json": b"[{"}), "conversations.json: is not valid JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_export_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_upload(tmp_path, content)


def test_an_archive_that_unpacks_to_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    bomb = archive({"conversations.json": b"[" + b" " * 50_000_000})
    assert len(bomb) < 100_000
    with pytest.raises(Refused, match="larger than an import may be"):
        read_upload(tmp_path, bomb, unpacked=1_000_000)
