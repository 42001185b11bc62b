"""Projects: folders of conversations."""

from typing import Any

import pytest

from tests.conftest import Caller


async def make(caller: Caller, **fields: Any) -> dict[str, Any]:
    made = await caller.post("/api/v1/projects", json={"name": "thesis"} | fields)
    assert made.status_code == 201, made.text
    project: dict[str, Any] = made.json()
    return project


async def test_a_project_is_made_read_changed_and_deleted(alice: Caller) -> None:
    project = await make(alice, description="sources")
    where = f"/api/v1/projects/{project['id']}"
    assert (await alice.get(where)).json() == project
    changed = (await alice.patch(where, json={"name": "book"})).json()
    assert changed == project | {"name": "book", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > project["updated_at"]
    assert (await alice.patch(where, json={})).json() == changed
    assert (await alice.delete(where)).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await alice.request(method, where)).status_code == 404


async def test_a_deleted_projects_conversations_stay(alice: Caller) -> None:
    project = await make(alice)
    made = await alice.post("/api/v1/conversations", json={"project_id": project["id"]})
    await alice.delete(f"/api/v1/projects/{project['id']}")
    kept = (await alice.get(made.headers["location"])).json()
    assert kept["project_id"] is None


async def test_projects_are_paged_newest_first(alice: Caller) -> None:
    made = [(await make(alice, name=str(n)))["id"] for n in range(5)]
    seen: list[str] = []
    params = {"limit": "2"}
    while True:
        page = (await alice.get("/api/v1/projects", params=params)).json()
        seen += [project["id"] for project in page["data"]]
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


async def test_a_strangers_project_is_not_there(alice: Caller, bob: Caller) -> None:
    project = await make(alice)
    where = f"/api/v1/projects/{project['id']}"
    missing = await bob.get("/api/v1/projects/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10")
    theirs = await bob.get(where)
    assert theirs.status_code == 404
    assert theirs.json()["type"] == missing.json()["type"]
    assert (await bob.patch(where, json={"name": "mine now"})).status_code == 404
    assert (await bob.delete(where)).status_code == 404
    assert (await bob.get("/api/v1/projects")).json()["data"] == []
    assert (await alice.get(where)).json() == project


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": ["x"]}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "\u200b\u2060"}, "name"),
        ({"name": "x", "description": None}, "description"),
        ({"name": "x", "description": "y" * 10_001}, "description"),
        ({"name": "x", "owner": "bob"}, "owner"),
    ],
)
async def test_a_wrong_project_is_refused_with_the_fields_name(
    alice: Caller, body: dict[str, Any], field: str
) -> None:
    refused = await alice.post("/api/v1/projects", json=body)
    assert refused.status_code == 422
    assert refused.json()["param"] == field
    assert [error["field"] for error in refused.json()["errors"]] == [field]
