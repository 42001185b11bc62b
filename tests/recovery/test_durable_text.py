"""The text so far of a running turn, when the way to the database breaks between a commit and its answer."""

from collections.abc import Mapping
from functools import partial

from baatcheet.chat.events import pack, unpack
from baatcheet.chat.store import Delta, NewConversation, Opening, TurnStore
from baatcheet.context.history import Bounds
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database, connect
from baatcheet.providers.model import Chunk
from tests.conftest import Caller


async def test_text_that_is_sent_again_because_the_answer_was_lost_leaves_no_hole(
    alice: Caller, database: Database, services: Mapping[str, str]
) -> None:
    store = TurnStore(database, partial(connect, services["DATABASE_URL"]))
    turn, process = new_id(), new_id()
    opening = Opening(
        turn=turn,
        user=alice.user_id,
        process=process,
        reply=new_id(),
        bounds=Bounds.within(8000, 50),
        conversation=new_id(),
        new=NewConversation("A conversation"),
    )
    assert (await store.open(opening))[0] == "opened"

    def delta(*words: str) -> Delta:
        chunks = [Chunk(raw=b"", text=word) for word in words]
        return Delta(turn, alice.user_id, 2, 1 + len(chunks), pack(chunks))

    await store.flush([turn], [delta("one", "two")])
    await store.flush([turn], [delta("one", "two", "three")])
    pieces = await store.deltas(turn, 0)
    assert [chunk.text for _, _, events in pieces for chunk in unpack(events)] == ["one", "two", "three"]
