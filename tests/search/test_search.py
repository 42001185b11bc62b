"""Search as a client meets it, on a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from baatcheet.platform.database import Database
from baatcheet.search.indexing import Indexer
from tests.conftest import Caller, NewCaller

Say = Callable[..., Awaitable[dict[str, Any]]]


async def converse(caller: Caller, *texts: str, **fields: Any) -> str:
    """A conversation with these messages, the first of them the user's; its id."""
    made = await caller.post("/api/v1/conversations", json={"title": "Untitled", **fields})
    assert made.status_code == 201, made.text
    identity: str = made.json()["id"]
    for place, content in enumerate(texts):
        role = "user" if place % 2 == 0 else "assistant"
        said = await caller.post(
            f"/api/v1/conversations/{identity}/messages", json={"role": role, "content": content}
        )
        assert said.status_code == 201, said.text
    return identity


async def search(caller: Caller, q: str, **parameters: Any) -> dict[str, Any]:
    answer = await caller.get("/api/v1/search", params={"q": q, **parameters})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def texts(caller: Caller, q: str, **parameters: Any) -> list[str]:
    return [one["snippet"]["text"] for one in (await search(caller, q, **parameters))["data"]]


async def test_a_message_is_found_in_the_moment_in_which_it_is_stored(alice: Caller) -> None:
    for number in range(5):
        await converse(alice, f"the otter number{number} swims")
        assert await texts(alice, f"number{number}") == [f"the otter number{number} swims"]


async def test_a_hit_says_where_it_stands_and_what_was_found(alice: Caller) -> None:
    conversation = await converse(alice, "We were running late", title="Monday")
    (hit,) = (await search(alice, "run"))["data"]
    assert hit["kind"] == "message"
    assert hit["conversation"] == {"id": conversation, "title": "Monday"}
    assert hit["message"]["role"] == "user"
    shown = hit["snippet"]
    assert [shown["text"][start:end] for start, end in shown["highlights"]] == ["running"]
    around = await alice.get(hit["url"])
    assert around.status_code == 200
    assert hit["message"]["id"] in [one["id"] for one in around.json()["data"]]


async def test_titles_are_found_and_a_new_title_takes_the_place_of_the_old(alice: Caller) -> None:
    conversation = await converse(alice, title="Quarterly penguins")
    (hit,) = (await search(alice, "penguin"))["data"]
    assert (hit["kind"], hit["message"], hit["url"]) == (
        "title",
        None,
        f"/api/v1/conversations/{conversation}",
    )
    await alice.patch(f"/api/v1/conversations/{conversation}", json={"title": "Quarterly walruses"})
    assert (await search(alice, "penguin"))["data"] == []
    assert len((await search(alice, "walrus"))["data"]) == 1


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("red apple", {"a red apple", "the apple is red"}),
        ('"red apple"', {"a red apple"}),
        ("apple -green", {"a red apple", "the apple is red"}),
        ("pear or apple", {"a red apple", "the apple is red", "a green apple", "one pear"}),
        ('-"red apple" apple', {"the apple is red", "a green apple"}),
        ("red pear or apple", {"a red apple", "the apple is red"}),
    ],
)
async def test_words_phrases_and_signs(new_caller: NewCaller, q: str, found: set[str]) -> None:
    caller = await new_caller()
    await converse(caller, "a red apple", "the apple is red", "a green apple", "one pear")
    assert set(await texts(caller, q)) == found


async def test_the_last_word_may_go_on_while_one_types(alice: Caller) -> None:
    await converse(alice, "chrysalis", "chrysanthemum", "chronicle")
    assert set(await texts(alice, "chrysa", typing="true")) == {"chrysalis", "chrysanthemum"}
    assert set(await texts(alice, "ch", typing="true")) == {"chrysalis", "chrysanthemum", "chronicle"}
    assert await texts(alice, "chrysa", typing="false") == []


async def test_a_mistyped_word_is_corrected_and_the_answer_says_so(alice: Caller) -> None:
    await converse(alice, "the accommodation was fine")
    page = await search(alice, "acommodation")
    assert [one["snippet"]["text"] for one in page["data"]] == ["the accommodation was fine"]
    assert page["corrections"] == [{"word": "acommodation", "instead": ["accommodation"]}]
    assert (await search(alice, "accommodation"))["corrections"] == []


async def test_filters_leave_what_they_say(alice: Caller) -> None:
    project = (await alice.post("/api/v1/projects", json={"name": "p"})).json()["id"]
    inside = await converse(alice, "heron one", "heron two", project_id=project, tags=["birds"])
    outside = await converse(alice, "heron three", "heron four", archived=True)
    assert set(await texts(alice, "heron", project_id=project)) == {"heron one", "heron two"}
    assert set(await texts(alice, "heron", tag="birds")) == {"heron one", "heron two"}
    assert set(await texts(alice, "heron", archived="true")) == {"heron three", "heron four"}
    assert set(await texts(alice, "heron", role="assistant")) == {"heron two", "heron four"}
    assert set(await texts(alice, "heron", conversation_id=outside, role="user")) == {"heron three"}
    assert set(await texts(alice, "heron", conversation_id=inside, role="user")) == {"heron one"}
    assert await texts(alice, "heron", since="2100-01-01T00:00:00Z") == []
    assert await texts(alice, "heron", until="2020-01-01T00:00:00Z") == []
    assert len(await texts(alice, "heron", since="2020-01-01T00:00:00Z", until="2100-01-01T00:00:00Z")) == 4


async def test_of_many_conversations_a_filter_leaves_a_few_or_all_but_a_few(alice: Caller) -> None:
    talks = [await converse(alice, f"osprey {n}", archived=n == 7) for n in range(12)]
    others = {f"osprey {n}" for n in range(12) if n != 7}
    assert await texts(alice, "osprey", archived="true") == ["osprey 7"]
    assert set(await texts(alice, "osprey", archived="false", limit=50)) == others
    for talk in talks[:7]:
        assert (await alice.delete(f"/api/v1/conversations/{talk}")).status_code == 204
    assert set(await texts(alice, "osprey", limit=50)) == {f"osprey {n}" for n in range(7, 12)}
    assert set(await texts(alice, "osprey", archived="false")) == {f"osprey {n}" for n in range(8, 12)}


@pytest.mark.parametrize("sort", ["relevance", "newest", "oldest"])
async def test_pages_hold_everything_once_and_in_order(new_caller: NewCaller, sort: str) -> None:
    caller = await new_caller()
    await converse(caller, *(f"{'lynx ' * (number % 3 + 1)}sighting {number}" for number in range(11)))
    whole = await texts(caller, "lynx", sort=sort, limit=100)
    assert len(set(whole)) == 11
    paged: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await search(caller, "lynx", sort=sort, limit=3, **cursor)
        paged += [one["snippet"]["text"] for one in page["data"]]
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
        await converse(caller, "a lynx came while we were paging") if sort == "relevance" else None
    assert [one for one in paged if "paging" not in one] == whole
    if sort != "relevance":
        numbers = [int(one.split()[-1]) for one in whole]
        assert numbers == sorted(numbers, reverse=sort == "newest")


async def test_a_cursor_is_of_its_own_search_only(alice: Caller) -> None:
    await converse(alice, *("ibis",) * 3)
    cursor = (await search(alice, "ibis", limit=1))["next_cursor"]
    refused = await alice.get("/api/v1/search", params={"q": "heron", "cursor": cursor})
    assert refused.status_code == 400
    assert refused.json()["type"] == "bad-request"


async def test_hits_are_grouped_by_conversation(alice: Caller) -> None:
    much = await converse(alice, "osprey", "osprey osprey", "osprey over the lake")
    little = await converse(alice, "an osprey, once")
    page = await search(alice, "osprey", group="conversation")
    assert {one["conversation"]["id"]: one["hits"] for one in page["data"]} == {much: 3, little: 1}
    first = await search(alice, "osprey", group="conversation", limit=1)
    second = await search(alice, "osprey", group="conversation", limit=1, cursor=first["next_cursor"])
    assert {first["data"][0]["conversation"]["id"], second["data"][0]["conversation"]["id"]} == {much, little}
    assert second["next_cursor"] is None


async def test_nobody_finds_what_others_said(alice: Caller, bob: Caller) -> None:
    await converse(alice, "the secret of the marmot", title="marmot")
    assert (await search(bob, "marmot"))["data"] == []


async def test_what_is_deleted_is_not_found(alice: Caller) -> None:
    conversation = await converse(alice, "gone with the wombat", title="wombat")
    await alice.delete(f"/api/v1/conversations/{conversation}")
    assert (await search(alice, "wombat"))["data"] == []


@pytest.mark.parametrize("q", ['"', "'", "or", "-", "a:b & c | !d", "%", "\\", "((", '"" -', "<->", ":*"])
async def test_no_text_is_an_operators_error(alice: Caller, q: str) -> None:
    answer = await alice.get("/api/v1/search", params={"q": q})
    assert answer.status_code in {200, 422}
    if answer.status_code == 422:
        assert answer.json()["type"] == "nothing-to-find"


async def test_a_search_for_nothing_says_what_to_do(alice: Caller) -> None:
    answer = await alice.get("/api/v1/search", params={"q": "-draft"})
    assert (answer.status_code, answer.json()["type"]) == (422, "nothing-to-find")
    assert "Add a word" in answer.json()["detail"]


async def test_a_very_long_message_is_found_by_words_far_apart_in_it(alice: Caller) -> None:
    filler = "lorem ipsum dolor sit amet " * 2_000
    await converse(alice, f"capybara {filler} jackdaw {filler} axolotl")
    (hit,) = (await search(alice, "capybara axolotl"))["data"]
    assert len(hit["snippet"]["text"]) < 400
    assert (await search(alice, "capybara aardvark"))["data"] == []


async def test_a_phrase_is_found_in_whichever_part_of_a_long_message_it_stands(alice: Caller) -> None:
    filler = "narwhal and whale and seal " * 1_000
    await converse(alice, f"{filler} the narwhal sings alone {filler} harpoon")
    for q in ('"narwhal sings alone"', '"narwhal sings alone" harpoon', 'harpoon "sings alone" seal'):
        (hit,) = (await search(alice, q))["data"]
        assert "narwhal sings alone" in hit["snippet"]["text"], q
    assert (await search(alice, '"narwhal sings harpoon"'))["data"] == []


async def test_a_phrase_across_the_end_of_a_piece_of_a_long_message_is_found(alice: Caller) -> None:
    words = " ".join(f"word{number}" for number in range(3_000))
    await converse(alice, words)
    for number in range(300, 2_900, 26):
        assert await texts(alice, f'"word{number} word{number + 1} word{number + 2}"'), number


async def test_hits_are_not_lost_while_the_index_is_written_anew(
    new_caller: NewCaller, database: Database
) -> None:
    caller = await new_caller()
    await converse(caller, *(f"a wolverine number {number}" for number in range(30)))
    indexer = Indexer(database)

    async def look() -> None:
        for _ in range(15):
            assert len(await texts(caller, "wolverine", limit=100)) >= 30

    async def write() -> None:
        for number in range(12):
            await converse(caller, f"another wolverine {number}")
            await indexer.catch_up(caller.user_id)

    await asyncio.gather(look(), look(), write())


async def test_names_are_found_by_neighbouring_parts(alice: Caller) -> None:
    await converse(alice, "call myHTTPServer", "then foo_barBazQux")
    assert await texts(alice, "HTTPServer") == ["call myHTTPServer"]
    assert await texts(alice, "bazqux") == ["then foo_barBazQux"]


async def test_roman_urdu_is_found_in_its_many_spellings(alice: Caller) -> None:
    await converse(alice, "yeh bohat acha hai", "mohabbat mein sab kuch theek hai")
    for q in ("bahut", "bohot", "buhat"):
        assert await texts(alice, q) == ["yeh bohat acha hai"], q
    assert await texts(alice, "muhabbat") == ["mohabbat mein sab kuch theek hai"]


async def test_finding_is_the_same_before_and_after_indexing(
    new_caller: NewCaller, database: Database
) -> None:
    caller = await new_caller()
    filler = "lorem ipsum dolor sit amet " * 1_000
    await converse(
        caller, "a red kite", "the kite is red", f"kite {filler} string", "snake_case kites", title="Kites"
    )
    asked = ["kite", '"red kite"', "kite -red", "kite string", "snake", "case kites", "kitte", "kite or case"]
    before = [await search(caller, q) for q in asked]
    await Indexer(database).catch_up(caller.user_id)
    after = [await search(caller, q) for q in asked]
    for q, old, new in zip(asked, before, after, strict=True):
        assert [one["snippet"] for one in old["data"]] == [one["snippet"] for one in new["data"]], q
        assert old["corrections"] == new["corrections"], q
    assert all(one["data"] for one in after)


async def test_searches_while_others_write_find_what_was_there(alice: Caller) -> None:
    await converse(alice, "a lone quokka")

    async def look() -> None:
        for _ in range(10):
            assert "a lone quokka" in await texts(alice, "quokka", limit=100)

    await asyncio.gather(look(), look(), *(converse(alice, f"quokka {number}") for number in range(5)))
