"""A problem is told alike whoever asks, and whenever: at once, or of the turn that kept it."""

import httpx
import pytest

from baatcheet.chat.feed import error_of, problem_of
from baatcheet.platform.errors import KINDS, Problem

CHAT = "/api/v1/chat/completions"


async def test_a_model_that_is_not_there_is_told_alike_whoever_named_it(alice: httpx.AsyncClient) -> None:
    made = await alice.post("/api/v1/conversations", json={"title": "t", "model": "no-such-model"})
    asked, kept = [
        (await alice.post(CHAT, json={"message": "hi", **more})).json()
        for more in ({"model": "no-such-model"}, {"conversation_id": made.json()["id"]})
    ]
    for name in ("type", "title", "status", "detail", "param"):
        assert kept[name] == asked[name]
    assert kept["title"] == "There is no such model"


async def test_a_prompt_larger_than_the_budget_has_a_title_of_its_own(alice: httpx.AsyncClient) -> None:
    told = (await alice.post(CHAT, json={"message": "hi", "system_prompt": "rule " * 20_000})).json()
    assert told["type"] == "context-length-exceeded"
    assert told["title"] == "The fixed parts of the prompt leave no room for a message"


@pytest.mark.parametrize("type_", sorted(KINDS))
def test_a_problem_that_a_turn_kept_is_told_as_it_was(type_: str) -> None:
    kind = KINDS[type_]
    problem: Problem = kind.__new__(kind)
    Problem.__init__(problem, "What went wrong.", param="model", headers={"retry-after": "7"})
    again = problem_of(error_of(problem))
    assert again.document() == problem.document()
    assert again.envelope() == problem.envelope()
    assert (again.status, again.headers) == (problem.status, problem.headers)


def test_a_problem_of_another_version_is_of_its_statuss_kind() -> None:
    told = problem_of({"status": 409, "type": "from-the-future", "message": "Taken.", "code": "taken"})
    assert told.document() == {
        "type": "conflict",
        "title": "This clashes with what is there now",
        "status": 409,
        "detail": "Taken.",
    }
