"""Routes through the API: seen by all, changed by administrators, asked for like models."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Caller

ECHO = "openai/scripted-echo"


@pytest_asyncio.fixture
async def put(admin: Caller) -> AsyncIterator[Any]:
    """Makes routes, and removes them after the test."""
    made: list[str] = []

    async def make(name: str, *steps: str, **more: Any) -> dict[str, Any]:
        body = {"steps": [{"model": one} for one in steps], **more}
        answer = await admin.put(f"/api/v1/routes/{name}", json=body)
        assert answer.status_code == 200, answer.text
        made.append(name)
        document: dict[str, Any] = answer.json()
        return document

    yield make
    for name in reversed(made):
        await admin.delete(f"/api/v1/routes/{name}")


async def test_a_route_is_made_seen_and_removed(put: Any, admin: Caller, alice: Caller) -> None:
    made = await put("mine", ECHO, "fast", description="For me", strategy="weighted")
    assert made["steps"] == [
        {"model": ECHO, "weight": 1, "served": True},
        {"model": "fast", "weight": 1, "served": True},
    ]
    assert made["tasks"] == ["chat"]
    assert made["built_in"] is False
    assert (await alice.get("/api/v1/routes/mine")).json() == made
    listed = {one["name"]: one for one in (await alice.get("/api/v1/routes")).json()["data"]}
    assert listed["mine"] == made
    assert listed["fast"]["built_in"] is True
    assert (await admin.delete("/api/v1/routes/mine")).status_code == 204
    gone = await alice.get("/api/v1/routes/mine")
    assert gone.status_code == 404
    assert gone.json()["type"] == "route-not-found"


async def test_only_an_administrator_changes_routes(alice: Caller) -> None:
    refused = await alice.put("/api/v1/routes/mine", json={"steps": [{"model": ECHO}]})
    assert refused.status_code == 403
    assert (await alice.delete("/api/v1/routes/fast")).status_code == 403


@pytest.mark.parametrize(
    ("name", "body", "kind", "words"),
    [
        ("mine", {"steps": [{"model": "mine"}]}, "unusable-route", "in a circle"),
        ("mine", {"steps": []}, "invalid", "steps"),
        ("mine", {"steps": [{"model": ECHO, "weight": -1}]}, "invalid", "weight"),
        ("mine", {"steps": [{"model": ECHO}], "strategy": "best"}, "invalid", "strategy"),
        ("Mine", {"steps": [{"model": ECHO}]}, "unusable-route", "small letters"),
        ("mine", {"steps": [{"model": ECHO}], "tasks": ["dance"]}, "invalid", "tasks"),
    ],
)
async def test_what_is_wrong_with_a_route_is_said(
    admin: Caller,
    name: str,
    body: Any,
    kind: str,
    words: str,
) -> None:
    answer = await admin.put(f"/api/v1/routes/{name}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == kind
    assert words in answer.text


async def test_a_route_is_among_the_models_and_is_asked_for_like_one(put: Any, alice: Caller) -> None:
    await put("aliased", "openai/scripted-503", ECHO)
    listed = {one["id"]: one for one in (await alice.get("/v1/models")).json()["data"]}
    assert listed["aliased"]["owned_by"] == "baatcheet"
    assert listed["aliased"]["created"] > 0
    assert "smart" in listed
    assert (await alice.get("/v1/models/aliased")).json() == listed["aliased"]
    body = {"model": "aliased", "messages": [{"role": "user", "content": "hello there"}]}
    answer = await alice.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert "hello there" in answer.json()["choices"][0]["message"]["content"]


async def test_the_turns_record_says_who_has_answered_and_why(put: Any, alice: Caller) -> None:
    await put("recorded", "openai/scripted-503", ECHO)
    body = {"model": "recorded", "message": "hello", "stream": False}
    turn = (await alice.post("/api/v1/chat/completions", json=body)).json()
    receipt = (await alice.get(f"/api/v1/turns/{turn['turn_id']}/context")).json()["receipt"]
    assert receipt["route"] == {
        "model": ECHO,
        "reason": "route recorded: 2 of 2 in its order",
        "tried": [{"model": "openai/scripted-503", "failure": "overloaded"}],
    }
    assert receipt["whole"]
    record = (await alice.get(f"/api/v1/turns/{turn['turn_id']}")).json()
    assert (record["model"], record["answered_by"]) == ("recorded", ECHO)


async def test_when_nobody_answers_the_record_says_who_was_asked(put: Any, alice: Caller) -> None:
    await put("hopeless", "openai/scripted-503", "openai/scripted-429")
    body = {"model": "hopeless", "message": "hello", "stream": False}
    answer = await alice.post("/api/v1/chat/completions", json=body)
    assert answer.status_code >= 429, answer.text
    turns = (await alice.get("/api/v1/turns")).json()["data"]
    receipt = (await alice.get(f"/api/v1/turns/{turns[0]['id']}/context")).json()["receipt"]
    assert [one["model"] for one in receipt["route"]["tried"]] == [
        "openai/scripted-503",
        "openai/scripted-429",
    ]


async def test_a_route_for_something_else_is_refused_with_words(put: Any, alice: Caller) -> None:
    await put("reading", ECHO, tasks=["ocr"])
    body = {"model": "reading", "messages": [{"role": "user", "content": "hello"}]}
    answer = await alice.post("/v1/chat/completions", json=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "The route 'reading' is for ocr, not for chat."
    assert "reading" not in [one["id"] for one in (await alice.get("/v1/models")).json()["data"]]
