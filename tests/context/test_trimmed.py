"""Messages of which the database sends the ends alone, and rows that nobody counted."""

from typing import Any

import pytest
from sqlalchemy import text

from baatcheet.context import counting
from baatcheet.context.manager import ContextConfig
from baatcheet.conversations.wire import stored_form
from baatcheet.platform.database import Database
from tests.context.conftest import NewManager, Talk

DASHES = "-" * 600_000 + "\nend"


def size(messages: Any) -> int:
    total = counting.REPLY_PRIMING
    for message in messages:
        spoken, beside = counting.countable(*stored_form(message))
        total += counting.count(spoken) + beside
    return total


@pytest.mark.parametrize("form", ["text", "parts"])
async def test_a_text_that_is_sent_by_its_ends_is_counted_as_it_is_sent(
    talk: Talk, database: Database, new_manager: NewManager, form: str
) -> None:
    await talk.say("hello", "hi", "here is a table", "thanks")
    parts = '{"content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]}'
    async with database.system() as session:
        await session.execute(
            text(
                "UPDATE messages SET content = :content, token_count = :tokens, "
                "parts = CASE WHEN :parts THEN jsonb_set(CAST(:json AS jsonb), '{content,0,text}', "
                "to_jsonb(CAST(:content AS text))) END "
                "WHERE conversation_id = :id AND depth = 2"
            ),
            {
                "content": DASHES,
                "tokens": counting.count(DASHES),
                "parts": form == "parts",
                "json": parts,
                "id": talk.id,
            },
        )
    made = await new_manager().get_context(
        talk.id, ContextConfig(max_tokens=4_000), user_id=talk.user, message="And the end?"
    )
    assert size(made.messages) <= 4_000
    assert made.tokens == size(made.messages)
    assert len(made.receipt["cut"]) == 1
    shown = [message for message in made.messages if "[…" in str(message["content"])]
    assert len(shown) == 1
    if form == "parts":
        assert [part["type"] for part in shown[0]["content"]] == ["text", "image_url"]


async def test_rows_that_were_written_without_a_count_are_counted(
    talk: Talk, database: Database, new_manager: NewManager
) -> None:
    await talk.say(*["a few words about the harbour and its boats " * 30] * 12)
    async with database.system() as session:
        await session.execute(
            text("UPDATE messages SET token_count = 0 WHERE conversation_id = :id"), {"id": talk.id}
        )
    made = await new_manager().get_context(
        talk.id, ContextConfig(max_tokens=1_000), user_id=talk.user, message="Which boats?"
    )
    assert made.tokens == size(made.messages) <= 1_000
