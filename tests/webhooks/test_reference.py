"""The reference page lists what webhooks get, and what that looks like."""

import json
from typing import Any

from baatcheet.events.catalogue import TYPES, WEBHOOK_TYPES
from baatcheet.webhooks.policy import TEST
from tests.docs.markdown import ROOT, snippets

PAGE = ROOT / "docs/reference/webhook-events.md"
# What a webhook gets beside the event's own data.
ADDED = {"message.created": {"content", "truncated"}}


def examples() -> dict[str, dict[str, Any]]:
    """The bodies on the page, by their type; the first shows the form alone."""
    shown = [json.loads(one.text) for one in snippets(PAGE) if one.language == "json"][1:]
    assert all(list(one) == ["type", "timestamp", "data"] for one in shown)
    return {one["type"]: one["data"] for one in shown}


def test_every_event_is_shown_with_all_its_members() -> None:
    shown = examples()
    assert shown.keys() == WEBHOOK_TYPES | {TEST}
    for name in WEBHOOK_TYPES:
        assert set(shown[name]) == set(TYPES[name].fields) | ADDED.get(name, set()), name


def test_every_member_is_explained() -> None:
    text = PAGE.read_text("utf-8")
    for members in examples().values():
        for member in members:
            assert f"| `{member}` | " in text
