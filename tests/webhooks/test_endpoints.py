"""Making, changing and deleting webhooks."""

from typing import Any

import pytest
from sqlalchemy import text

from tests.webhooks.conftest import SETTINGS, Hooks, Person
from tests.webhooks.receiver import Receiver

URL = "https://example.com/hooks"


async def test_a_webhook_is_made_read_changed_and_deleted(alice: Person) -> None:
    webhook = await alice.make(URL, events=["turn.*", "export.completed", "turn.*"], description="Slack")
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert webhook["events"] == ["turn.*", "export.completed"]
    assert webhook["active"] is True
    assert await alice.look(webhook) == webhook
    changed = (await alice.patch(f"/{webhook['id']}", json={"events": ["*"]})).json()
    assert changed == webhook | {"events": ["*"], "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > webhook["updated_at"]
    assert (await alice.patch(f"/{webhook['id']}", json={})).json() == changed
    assert (await alice.delete(f"/{webhook['id']}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await alice.request(method, f"/{webhook['id']}")
        assert gone.status_code == 404
        assert gone.json()["type"] == "webhook-not-found"
    assert (await alice.get("")).json()["data"] == []


async def test_by_default_a_webhook_gets_everything(alice: Person) -> None:
    assert (await alice.make(URL))["events"] == ["*"]


async def test_a_secret_is_shown_once(alice: Person, hooks: Hooks) -> None:
    key = {"idempotency-key": "mine"}
    made = await alice.post("", headers=key, json={"url": URL})
    secret = made.json()["secret"]
    repeated = await alice.post("", headers=key, json={"url": URL})
    assert repeated.status_code == 201
    assert repeated.headers["idempotent-replayed"] == "true"
    assert repeated.json() == made.json() | {"secret": None}
    everything = [(await alice.get("")).text, (await alice.get(f"/{made.json()['id']}")).text, repeated.text]
    assert not any(secret in text for text in everything)
    assert len((await alice.get("")).json()["data"]) == 1
    async with hooks.db.tenant(alice.user_id) as session:
        with pytest.raises(Exception, match="permission denied"):
            await session.execute(text("SELECT secret FROM webhook_secrets"))


async def test_the_values_of_ones_own_headers_are_not_shown(alice: Person) -> None:
    webhook = await alice.make(URL, headers={"Authorization": "Bearer hush-hush", "X-Tenant": "7"})
    assert webhook["header_names"] == ["Authorization", "X-Tenant"]
    assert "hush-hush" not in (await alice.get(f"/{webhook['id']}")).text
    assert "headers" not in webhook


async def test_webhooks_are_paged_newest_first(alice: Person) -> None:
    made = [(await alice.make(f"{URL}/{n}"))["id"] for n in range(5)]
    seen: list[str] = []
    params = {"limit": "2"}
    while True:
        page = (await alice.get("", params=params)).json()
        seen += [webhook["id"] for webhook in page["data"]]
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"url": None}, "url"),
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://localhost:9/", "x": 1}, "x"),
        ({"url": "https://169.254.169.254/"}, "url"),
        ({"url": "https://example.com/#part"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://me:you@example.com/"}, "url"),
        ({"url": "https://example.com/\n"}, "url"),
        ({"url": "https://example.com/" + "x" * 2000}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["turn.complete"]}, "events"),
        ({"url": URL, "events": ["turn"]}, "events"),
        ({"url": URL, "events": ["job.updated"]}, "events"),
        ({"url": URL, "events": ["key.rotated"]}, "events"),
        ({"url": URL, "events": "*"}, "events"),
        ({"url": URL, "headers": {"Host": "x"}}, "headers"),
        ({"url": URL, "headers": {"transfer-encoding": "chunked"}}, "headers"),
        ({"url": URL, "headers": {"Webhook-Signature": "v1,x"}}, "headers"),
        ({"url": URL, "headers": {"X-BaatCheet-Event": "x"}}, "headers"),
        ({"url": URL, "headers": {"Proxy-Authorization": "x"}}, "headers"),
        ({"url": URL, "headers": {"A": "1", "a": "2"}}, "headers"),
        ({"url": URL, "headers": {"A B": "1"}}, "headers"),
        ({"url": URL, "headers": {"A": "1\r\nB: 2"}}, "headers"),
        ({"url": URL, "headers": {"A": "پ"}}, "headers"),
        ({"url": URL, "headers": {"A": ""}}, "headers"),
        ({"url": URL, "headers": {f"A{n}": "1" for n in range(21)}}, "headers"),
        ({"url": URL, "description": "x" * 1001}, "description"),
        ({"url": URL, "active": "yes"}, "active"),
    ],
)
async def test_a_wrong_webhook_is_refused_with_the_fields_name(
    strict_hooks: Hooks, body: dict[str, Any], field: str
) -> None:
    alice = await strict_hooks.person()
    refused = await alice.post("", json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["param"].partition(".")[0] == field
    assert (await alice.get("")).json()["data"] == []


async def test_a_changed_address_is_held_to_the_same_rules(strict_hooks: Hooks) -> None:
    alice = await strict_hooks.person()
    webhook = await alice.make(URL)
    refused = await alice.patch(f"/{webhook['id']}", json={"url": "https://example.com:22/"})
    assert refused.status_code == 422
    assert refused.json()["type"] == "address-not-allowed"
    assert (await alice.patch(f"/{webhook['id']}", json={"url": "https://[::1]/"})).status_code == 422


async def test_an_unknown_event_is_refused_with_a_list_of_what_there_is(alice: Person) -> None:
    refused = await alice.post("", json={"url": URL, "events": ["turn.complete"]})
    assert "turn.completed" in refused.json()["detail"]


async def test_administrators_may_ask_for_their_own_events(admin: Person, alice: Person) -> None:
    assert (await admin.make(URL, events=["key.rotated", "key.*"]))["events"] == ["key.rotated", "key.*"]
    webhook = await alice.make(URL)
    refused = await alice.patch(f"/{webhook['id']}", json={"events": ["key.*"]})
    assert refused.status_code == 422
    assert "administrators" in refused.json()["detail"]


async def test_there_is_an_end_to_how_many_one_may_have(alice: Person, bob: Person) -> None:
    for n in range(SETTINGS.max_endpoints):
        await alice.make(f"{URL}/{n}")
    refused = await alice.post("", json={"url": URL})
    assert refused.status_code == 409
    assert refused.json()["type"] == "too-many-webhooks"
    await bob.make(URL)


async def test_a_strangers_webhook_is_not_there(alice: Person, bob: Person, receiver: Receiver) -> None:
    webhook = await alice.make(receiver.url())
    delivery = (await alice.post(f"/{webhook['id']}/test")).json()
    missing = await bob.get("/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10")
    own = await bob.make(receiver.url())
    for method, path, body in [
        ("GET", f"/{webhook['id']}", None),
        ("PATCH", f"/{webhook['id']}", {"url": URL}),
        ("DELETE", f"/{webhook['id']}", None),
        ("POST", f"/{webhook['id']}/rotate", None),
        ("POST", f"/{webhook['id']}/test", None),
        ("GET", f"/{webhook['id']}/deliveries", None),
        ("POST", f"/{webhook['id']}/replay", {"since": "2020-01-01T00:00:00Z"}),
        ("GET", f"/{webhook['id']}/deliveries/{delivery['id']}", None),
        ("POST", f"/{webhook['id']}/deliveries/{delivery['id']}/replay", None),
        ("GET", f"/{own['id']}/deliveries/{delivery['id']}", None),
        ("POST", f"/{own['id']}/deliveries/{delivery['id']}/replay", None),
    ]:
        theirs = await bob.request(method, path, json=body)
        assert theirs.status_code == 404, (method, path, theirs.text)
        if own["id"] not in path:
            assert theirs.json()["type"] == missing.json()["type"]
    page = (await bob.get("")).json()["data"]
    assert [one["id"] for one in page] == [own["id"]]
    assert (await alice.look(webhook)).items() <= webhook.items()
