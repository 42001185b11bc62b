"""Keys in the process's environment."""

import pytest

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.environment import EnvironmentStore
from baatcheet.keys.stores.model import ReadOnlyStore


async def test_the_variables_keys_are_there_each_once_and_say_how_to_move_them() -> None:
    store = EnvironmentStore({"groq": [SecretKey("one"), SecretKey("two"), SecretKey("one")], "gemini": []})
    found = await store.fetch(["groq", "gemini", "openrouter"])
    assert [key.reveal() for key in found["groq"].keys] == ["one", "two"]
    assert set(found) == {"groq"}
    assert (await store.versions("groq")).current == found["groq"]
    for change in (
        store.replace("groq", [SecretKey("three")]),
        store.stage("groq", [SecretKey("three")]),
        store.promote("groq", "environment"),
        store.roll_back("groq", "environment"),
        store.discard("groq"),
    ):
        with pytest.raises(ReadOnlyStore, match=r"GROQ_API_KEY.*baatcheet secrets import"):
            await change
    assert not store.writable
