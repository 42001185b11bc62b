"""Users: an administrator's business."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.conftest import Caller, NewCaller


async def test_an_administrator_adds_changes_and_lists_users(admin: Caller) -> None:
    email = f"{secrets.token_hex(6)}@example.com"
    made = await admin.post("/api/v1/users", json={"name": "Zoya", "email": email})
    assert made.status_code == 201
    where = made.headers["location"]
    assert (await admin.get(where)).json() == made.json()
    changed = await admin.patch(where, json={"name": "Zoya A.", "email": None})
    assert changed.json()["name"] == "Zoya A."
    assert changed.json()["email"] is None
    assert changed.json()["role"] == "user"
    assert changed.json()["updated_at"] > made.json()["updated_at"]
    listed = (await admin.get("/api/v1/users")).json()["data"]
    assert listed[0]["id"] == made.json()["id"]


async def test_users_are_nobody_elses_business(alice: Caller, bob: Caller) -> None:
    for method, path in [
        ("GET", "/api/v1/users"),
        ("GET", f"/api/v1/users/{bob.user_id}"),
        ("GET", f"/api/v1/users/{alice.user_id}"),
        ("PATCH", f"/api/v1/users/{alice.user_id}"),
        ("POST", "/api/v1/users"),
    ]:
        refused = await alice.request(method, path, json={"name": "x"} if method != "GET" else None)
        assert refused.status_code == 403, (method, path)
        assert refused.json()["needs"] == "admin"


async def test_an_email_address_belongs_to_one_user(admin: Caller, alice: Caller) -> None:
    email = f"{secrets.token_hex(6)}@Example.com"
    assert (await admin.post("/api/v1/users", json={"name": "a", "email": email})).status_code == 201
    again = await admin.post("/api/v1/users", json={"name": "b", "email": email.lower()})
    assert again.status_code == 409
    assert again.json()["type"] == "email-taken"
    taken = await admin.patch(f"/api/v1/users/{alice.user_id}", json={"email": email})
    assert taken.status_code == 409


async def test_a_user_who_is_not_there_is_not_found(admin: Caller) -> None:
    for path in ("/api/v1/users/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10", "/api/v1/users/nobody"):
        assert (await admin.get(path)).status_code == 404
        assert (await admin.patch(path, json={"name": "x"})).status_code == 404


async def administrators(caller: Caller) -> set[str]:
    """The active ones, of however many users the tests have made; none to who may not ask."""
    found: set[str] = set()
    params: dict[str, Any] = {"limit": 200}
    while (answer := await caller.get("/api/v1/users", params=params)).status_code == 200:
        page = answer.json()
        found |= {user["id"] for user in page["data"] if user["role"] == "admin" and user["active"]}
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    return found


@pytest.mark.parametrize("change", [{"role": "user"}, {"active": False}])
async def test_the_last_administrator_stays(admin: Caller, change: dict[str, Any]) -> None:
    for other in await administrators(admin) - {str(admin.user_id)}:
        await admin.patch(f"/api/v1/users/{other}", json={"role": "user"})
    refused = await admin.patch(f"/api/v1/users/{admin.user_id}", json=change)
    assert refused.status_code == 409
    assert refused.json()["type"] == "last-admin"
    assert (await admin.get("/api/v1/users")).status_code == 200


async def test_two_administrators_cannot_demote_each_other_at_once(
    admin: Caller, new_caller: NewCaller
) -> None:
    second = await new_caller("second", role="admin")
    answers = await asyncio.gather(
        *(
            caller.patch(f"/api/v1/users/{other.user_id}", json={"role": "user"})
            for caller, other in ((admin, second), (second, admin))
        )
    )
    assert await administrators(admin) or await administrators(second)
    assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])
    if (await admin.get("/api/v1/users")).status_code == 403:  # the second one won: give it back
        await second.patch(f"/api/v1/users/{admin.user_id}", json={"role": "admin"})
        async with asyncio.timeout(6):
            while (await admin.get("/api/v1/users")).status_code != 200:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": "\u3000"}, "name"),
        ({"name": "\u200b"}, "name"),
        ({"email": "a\x1b@example.com"}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"role": "owner"}, "role"),
        ({"active": "yes"}, "active"),
        ({"active": 1}, "active"),
        ({"active": None}, "active"),
        ({"password": "x"}, "password"),
    ],
)
async def test_a_wrong_change_of_a_user_is_refused_with_the_fields_name(
    admin: Caller, alice: Caller, body: dict[str, Any], field: str
) -> None:
    refused = await admin.patch(f"/api/v1/users/{alice.user_id}", json=body)
    assert refused.status_code == 422
    assert refused.json()["param"] == field
