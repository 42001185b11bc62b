"""Two requests at once come out as if one had come after the other, and leave nothing without its conversation.

Hypothesis draws what is done at once, and in what state; a model knows which outcomes a one-after-the-other has.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import ADMIN_TOKEN, Caller, RunningServer
from tests.running import new_user

CHAT = "/api/v1/chat/completions"
# Which of several: how many there are depends on who came first, and what is drawn must not.
NUMBERS = st.integers(0, 999)


@dataclass
class Talk:
    """What the model knows of a conversation."""

    title: str = ""
    project: str | None = None
    tags: list[str] = field(default_factory=list)
    deleted: bool = False
    said: set[str] = field(default_factory=set)  # what was acknowledged


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


class Machine(RuleBasedStateMachine):
    """One user's conversations, with two requests at a time."""

    runner: asyncio.Runner
    url: str
    token: str

    def __init__(self) -> None:
        super().__init__()
        self.talks: dict[str, Talk] = {}
        self.gone: dict[str, set[str]] = {}  # deleted for good, with its messages' ids
        self.caller = Caller(self.url, self.token)
        self.projects = [
            self.ask("POST", "/api/v1/projects", {"name": name}).json()["id"] for name in ("a", "b")
        ]
        self.open()

    def teardown(self) -> None:
        self.runner.run(self.caller.aclose())

    # Speaking to the server

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.runner.run(self.caller.request(method, path, json=body))

    def both(self, *requests: tuple[str, str, Any]) -> list[httpx.Response]:
        async def ask() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self.caller.request(method, path, json=body) for method, path, body in requests)
            )

        answers = self.runner.run(ask())
        assert all(one.status_code < 500 for one in answers), [one.text for one in answers]
        return answers

    def one(self, data: st.DataObject, *, deleted: bool = False) -> tuple[str, Talk]:
        some = [key for key, one in self.talks.items() if one.deleted == deleted]
        id_ = some[data.draw(NUMBERS) % len(some)]
        return id_, self.talks[id_]

    def any_there(self) -> bool:
        return any(not one.deleted for one in self.talks.values())

    def any_deleted(self) -> bool:
        return any(one.deleted for one in self.talks.values())

    def message_ids(self, id_: str) -> set[str]:
        page = self.ask("GET", f"/api/v1/conversations/{id_}/messages?branch=all&limit=100").json()
        return {one["id"] for one in page["data"]}

    # What is done

    @rule()
    def open(self) -> None:
        title = secrets.token_hex(3)
        made = self.ask("POST", "/api/v1/conversations", {"title": title}).json()
        self.talks[made["id"]] = Talk(title)

    @precondition(any_there)
    @rule(data=st.data())
    def two_edits_of_the_same(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        titles = [secrets.token_hex(3), secrets.token_hex(3)]
        answers = self.both(*(("PATCH", f"/api/v1/conversations/{id_}", {"title": one}) for one in titles))
        assert [one.status_code for one in answers] == [200, 200]
        assert [one.json()["title"] for one in answers] == titles
        talk.title = self.ask("GET", f"/api/v1/conversations/{id_}").json()["title"]
        assert talk.title in titles

    @precondition(any_there)
    @rule(data=st.data(), tags=st.lists(st.sampled_from(["a", "b", "c"]), unique=True))
    def two_edits_of_different_fields(self, data: st.DataObject, tags: list[str]) -> None:
        """Neither undoes the other."""
        id_, talk = self.one(data)
        talk.title, talk.tags = secrets.token_hex(3), tags
        where = f"/api/v1/conversations/{id_}"
        answers = self.both(("PATCH", where, {"title": talk.title}), ("PATCH", where, {"tags": tags}))
        assert [one.status_code for one in answers] == [200, 200]

    @precondition(any_there)
    @rule(data=st.data())
    def an_edit_and_a_turn(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        title, said = secrets.token_hex(3), f"say {secrets.token_hex(3)}"
        edited, turned = self.both(
            ("PATCH", f"/api/v1/conversations/{id_}", {"title": title}),
            ("POST", CHAT, {"message": said, "conversation_id": id_}),
        )
        assert (edited.status_code, turned.status_code) == (200, 200), (edited.text, turned.text)
        talk.title = title
        talk.said.add(said)

    @precondition(any_there)
    @rule(data=st.data())
    def a_switch_of_branch_and_a_turn(self, data: st.DataObject) -> None:
        """Either the turn goes on from where was switched to, or the switch finds the turn, or what it left."""
        id_, talk = self.one(data)
        messages, number = sorted(self.message_ids(id_)), data.draw(NUMBERS)
        if not messages:
            return
        head = messages[number % len(messages)]
        before = self.ask("GET", f"/api/v1/conversations/{id_}").json()["head_id"]
        said = f"say {secrets.token_hex(3)}"
        switched, turned = self.both(
            ("PATCH", f"/api/v1/conversations/{id_}", {"head_id": head}),
            ("POST", CHAT, {"message": said, "conversation_id": id_}),
        )
        assert turned.status_code == 200, turned.text
        talk.said.add(said)
        assert switched.status_code in {200, 409}
        turn = self.ask("GET", f"/api/v1/turns/{turned.json()['turn_id']}").json()
        after = self.ask("GET", f"/api/v1/messages/{turn['input_id']}").json()["parent_id"]
        now = self.ask("GET", f"/api/v1/conversations/{id_}").json()["head_id"]
        if switched.status_code == 409:
            assert (after, now) == (before, turn["reply_id"])
        else:
            assert (after, now) in {(head, turn["reply_id"]), (before, head)}

    @precondition(any_there)
    @rule(data=st.data())
    def two_turns(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        said = [f"say {secrets.token_hex(3)}" for _ in range(2)]
        answers = self.both(*(("POST", CHAT, {"message": one, "conversation_id": id_}) for one in said))
        codes = [one.status_code for one in answers]
        assert 200 in codes
        assert set(codes) <= {200, 409}
        talk.said |= {text for text, code in zip(said, codes, strict=True) if code == 200}

    @precondition(any_there)
    @rule(data=st.data())
    def two_messages(self, data: st.DataObject) -> None:
        """One after the other, and none beside the other."""
        id_, talk = self.one(data)
        said = [secrets.token_hex(3), secrets.token_hex(3)]
        where = f"/api/v1/conversations/{id_}/messages"
        answers = self.both(*(("POST", where, {"role": "user", "content": one}) for one in said))
        assert [one.status_code for one in answers] == [201, 201]
        first, second = (one.json() for one in answers)
        assert first["parent_id"] == second["id"] or second["parent_id"] == first["id"]
        talk.said |= set(said)

    @precondition(any_there)
    @rule(data=st.data(), permanently=st.booleans())
    def a_deletion_and_a_turn(self, data: st.DataObject, permanently: bool) -> None:
        id_, talk = self.one(data)
        messages = self.message_ids(id_)
        said = f"say {secrets.token_hex(3)}"
        query = "?permanently=true" if permanently else ""
        deleted, turned = self.both(
            ("DELETE", f"/api/v1/conversations/{id_}{query}", None),
            ("POST", CHAT, {"message": said, "conversation_id": id_}),
        )
        assert deleted.status_code in {204, 409}
        assert turned.status_code in {200, 404}
        assert (deleted.status_code, turned.status_code) != (409, 404)
        if turned.status_code == 200:
            talk.said.add(said)
        if deleted.status_code == 204:
            self._deleted(id_, messages, permanently=permanently)

    @precondition(any_there)
    @rule(data=st.data())
    def a_deletion_and_an_edit(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        messages, title = self.message_ids(id_), secrets.token_hex(3)
        deleted, edited = self.both(
            ("DELETE", f"/api/v1/conversations/{id_}", None),
            ("PATCH", f"/api/v1/conversations/{id_}", {"title": title}),
        )
        assert deleted.status_code == 204
        assert edited.status_code in {200, 404}
        if edited.status_code == 200:
            talk.title = title
        self._deleted(id_, messages, permanently=False)

    @precondition(any_deleted)
    @rule(data=st.data())
    def a_restoration_and_a_deletion_for_good(self, data: st.DataObject) -> None:
        id_, _ = self.one(data, deleted=True)
        restored, deleted = self.both(
            ("POST", f"/api/v1/conversations/{id_}/restore", None),
            ("DELETE", f"/api/v1/conversations/{id_}?permanently=true", None),
        )
        assert deleted.status_code == 204
        assert restored.status_code in {200, 404}
        self._deleted(id_, set(), permanently=True)

    @precondition(any_deleted)
    @rule(data=st.data())
    def a_restoration_and_a_turn(self, data: st.DataObject) -> None:
        id_, talk = self.one(data, deleted=True)
        said = f"say {secrets.token_hex(3)}"
        restored, turned = self.both(
            ("POST", f"/api/v1/conversations/{id_}/restore", None),
            ("POST", CHAT, {"message": said, "conversation_id": id_}),
        )
        assert restored.status_code == 200
        assert turned.status_code in {200, 404}
        talk.deleted = False
        if turned.status_code == 200:
            talk.said.add(said)

    @precondition(any_there)
    @rule(data=st.data())
    def two_moves(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        where = f"/api/v1/conversations/{id_}"
        answers = self.both(*(("PATCH", where, {"project_id": one}) for one in self.projects))
        assert [one.status_code for one in answers] == [200, 200]
        assert [one.json()["project_id"] for one in answers] == self.projects
        talk.project = self.ask("GET", where).json()["project_id"]
        assert talk.project in self.projects

    @precondition(any_there)
    @rule(data=st.data())
    def a_move_into_a_project_that_is_deleted(self, data: st.DataObject) -> None:
        id_, talk = self.one(data)
        project = self.ask("POST", "/api/v1/projects", {"name": "short-lived"}).json()["id"]
        moved, deleted = self.both(
            ("PATCH", f"/api/v1/conversations/{id_}", {"project_id": project}),
            ("DELETE", f"/api/v1/projects/{project}", None),
        )
        assert deleted.status_code == 204
        assert moved.status_code in {200, 404}
        if moved.status_code == 200:
            talk.project = None

    def _deleted(self, id_: str, messages: set[str], *, permanently: bool) -> None:
        if permanently:
            del self.talks[id_]
            self.gone[id_] = messages
        else:
            self.talks[id_].deleted = True

    # What holds at any moment

    @invariant()
    def what_is_there_is_whole(self) -> None:
        there = {key for key, one in self.talks.items() if not one.deleted}
        for deleted, ids in (("false", there), ("true", self.talks.keys() - there)):
            page = self.ask("GET", f"/api/v1/conversations?limit=100&deleted={deleted}").json()
            assert {one["id"] for one in page["data"]} == ids
            for shown in page["data"]:
                talk = self.talks[shown["id"]]
                told = (shown["title"], shown["project_id"], shown["tags"])
                assert told == (talk.title, talk.project, talk.tags)
                if deleted == "false":
                    self._is_whole(shown, talk)

    def _is_whole(self, shown: dict[str, Any], talk: Talk) -> None:
        page = self.ask("GET", f"/api/v1/conversations/{shown['id']}/messages?branch=all&limit=100").json()
        messages = {one["id"]: one for one in page["data"]}
        if page["has_more"]:
            return
        assert len(messages) == shown["message_count"]
        assert sum(one["token_count"] for one in messages.values()) == shown["token_total"]
        assert {one["parent_id"] for one in messages.values()} <= messages.keys() | {None}
        assert (shown["head_id"] in messages) if messages else shown["head_id"] is None
        assert talk.said <= {one["content"] for one in messages.values()}
        turns = self.ask("GET", f"/api/v1/turns?conversation_id={shown['id']}&limit=100").json()["data"]
        for turn in turns:
            assert turn["status"] == "completed"
            assert {turn["input_id"], turn["reply_id"]} <= messages.keys()

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        for id_, messages in self.gone.items():
            assert self.ask("GET", f"/api/v1/turns?conversation_id={id_}").json()["data"] == []
            for one in sorted(messages)[:1]:
                assert self.ask("GET", f"/api/v1/messages/{one}").status_code == 404


def test_two_at_once_come_out_as_one_after_the_other(server: RunningServer, runner: asyncio.Runner) -> None:
    class Running(Machine):
        def __init__(self) -> None:
            self.runner, self.url = runner, server.url
            self.token = new_user(server.url, ADMIN_TOKEN)
            super().__init__()

    run_state_machine_as_test(
        Running,
        settings=settings(
            max_examples=4,
            stateful_step_count=10,
            deadline=None,
            phases=[
                Phase.generate
            ],  # what came out of a race does not come out again: there is nothing to shrink
            suppress_health_check=list(HealthCheck),
        ),
    )
