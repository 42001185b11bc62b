"""Export, import, export again: the same but for the ids, whatever tree of messages it is."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import Caller
from tests.exports.application import Running
from tests.exports.test_imports_api import bring, export_of, outcomes, without_ids
from tests.exports.test_own_format import PARTS

WORDS = [
    "Attabad",
    "درۂ خنجراب",
    "राकापोशी",
    "洪扎河谷",
    "🏔️👩‍🌾",
    "a\tb\n\nc",
    "```py\nx = 1\n```",
    "\u202eright",
    "\\ud83d",
    "é",
]
NUMBERS = {"something": {"large": 12345678901234567890123, "small": 1e-300, "exact": 0.1, "one": 1.0}}


def moment(chance: random.Random) -> str:
    began = datetime(2020, 1, 1, tzinfo=UTC)
    return (began + timedelta(microseconds=chance.randrange(2 * 10**14))).isoformat().replace("+00:00", "Z")


def conversation(chance: random.Random, count: int) -> dict[str, Any]:
    """Any tree, its messages in any order, with few different times."""
    times = [moment(chance) for _ in range(3)]
    messages: list[dict[str, Any]] = []
    for at in range(count):
        above = chance.choice([None, *range(at)]) if chance.random() < 0.4 else (at - 1 if at else None)
        messages.append(
            {
                "id": str(at),
                "parent_id": str(above) if above is not None else None,
                "role": chance.choice(["system", "developer", "user", "assistant", "tool"]),
                "content": " ".join(chance.choices(WORDS, k=chance.randrange(4))),
                "parts": chance.choice([*PARTS, NUMBERS]),
                "model": chance.choice([None, "groq/llama-3.3-70b-versatile"]),
                "finish_reason": chance.choice([None, "stop", "length"]),
                "created_at": chance.choice(times),
            }
        )
    head = chance.choice([None, *messages])
    chance.shuffle(messages)
    return {
        "id": "x",
        "title": chance.choice(["", "Trip to Hunza 🏔", "ہنزہ"]),
        "system_prompt": chance.choice([None, "Be brief.\n\nPlease."]),
        "model": chance.choice([None, "auto"]),
        "archived": chance.random() < 0.5,
        "pinned": chance.random() < 0.5,
        "tags": chance.sample(["work", "سفر", "two words"], chance.randint(0, 3)),
        "head_id": head["id"] if head else None,
        "created_at": moment(chance),
        "updated_at": moment(chance),
        "messages": messages,
    }


async def branches(running: Running, document: dict[str, Any]) -> list[tuple[int, int]]:
    """Of each message of an export, in its order: the place of the first message of its branch, and its depth."""
    (talk,) = document["conversations"]
    at = {message["id"]: place for place, message in enumerate(talk["messages"])}
    async with running.db.system() as session:
        rows = await session.execute(
            text(
                "SELECT id::text, branch_id::text AS branch, depth FROM messages WHERE conversation_id = :id"
            ),
            {"id": talk["id"]},
        )
        found = {row.id: (at[row.branch], row.depth) for row in rows}
    return [found[message["id"]] for message in talk["messages"]]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 40])
async def test_an_export_of_an_import_of_an_export_is_that_export(
    alice: Caller, running: Running, worker: None, count: int
) -> None:
    chance = random.Random()
    written = conversation(chance, count)
    made = {"format": "baatcheet.conversations", "version": 1, "conversations": [written]}
    imported = await bring(alice, made)
    assert imported["imported"] == 1, made
    (outcome,) = await outcomes(alice, imported)
    first = await export_of(alice, outcome["conversation_id"])
    (told,) = first["conversations"]
    # Nothing of what was written is lost …
    by_text = sorted(json.dumps([m[f] for f in FIELDS], sort_keys=True) for m in told["messages"])
    wanted = sorted(json.dumps([m[f] for f in FIELDS], sort_keys=True) for m in written["messages"])
    assert by_text == wanted
    for field in ("title", "system_prompt", "model", "archived", "pinned", "tags"):
        assert told[field] == written[field], field
    # … and from then on nothing changes but the ids.
    (again,) = await outcomes(alice, await bring(alice, first, duplicates="copy"))
    second = await export_of(alice, again["conversation_id"])
    assert without_ids(second) == without_ids(first)
    assert await branches(running, second) == await branches(running, first)


FIELDS = ("role", "content", "parts", "model", "finish_reason", "created_at")
