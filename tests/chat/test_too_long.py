"""A provider that finds a prompt too long, though it was thought to fit."""

import httpx
import pytest

from tests.chat.conftest import Upstream
from tests.chat.test_long_conversations import ask, chatter, conversation_of
from tests.scripted_provider import Step

REFUSALS = {
    "code": {"message": "Too much.", "type": "invalid_request_error", "code": "context_length_exceeded"},
    "words": {
        "message": "This model's maximum context length is 4096 tokens.",
        "type": "invalid_request_error",
    },
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_the_turn_is_planned_smaller_and_answered(
    alice: httpx.AsyncClient, upstream: Upstream, refusal: str
) -> None:
    conversation = await conversation_of(alice, chatter(30))
    refused = Step(status=400, error=REFUSALS[refusal])
    question = f"What did we cook, and when? ({refusal})"
    upstream.provider.script(refused, refused)
    turn = await ask(alice, conversation, question)
    assert turn["status"] == "completed"
    assert upstream.times_asked(question) == 3
    sizes = [len(str(request.body["messages"])) for request in upstream.provider.chats[-3:]]
    assert sizes[0] > 1.2 * sizes[1] > 1.4 * sizes[2]
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["whole"][-1] == turn["user_message_id"]


async def test_what_stays_too_long_is_told(alice: httpx.AsyncClient, upstream: Upstream) -> None:
    conversation = await conversation_of(alice, chatter(4))
    upstream.provider.script(*[Step(status=400, error=REFUSALS["code"])] * 3)
    answer = await alice.post(
        "/api/v1/chat/completions", json={"conversation_id": conversation, "message": "Still too long?"}
    )
    assert answer.status_code == 400
    assert upstream.times_asked("Still too long?") == 3


async def test_a_request_that_is_wrong_otherwise_is_not_sent_again(
    alice: httpx.AsyncClient, upstream: Upstream
) -> None:
    conversation = await conversation_of(alice, chatter(4))
    wrong = {"message": "Unsupported value.", "type": "invalid_request_error", "code": "unsupported_value"}
    upstream.provider.script(Step(status=400, error=wrong))
    answer = await alice.post(
        "/api/v1/chat/completions", json={"conversation_id": conversation, "message": "Is this wrong?"}
    )
    assert answer.status_code == 400
    assert upstream.times_asked("Is this wrong?") == 1
