"""Who is asked for a name, in which order, and why."""

import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baatcheet.keys.pool import PooledKey
from baatcheet.keys.secret import SecretKey
from baatcheet.providers.catalogue import UnknownModel
from baatcheet.providers.model import Target
from baatcheet.providers.prices import Price, Prices
from baatcheet.providers.profiles import Known
from baatcheet.providers.routing.latency import Latencies
from baatcheet.providers.routing.model import Route, RouteUnfit, Step, loop_of
from baatcheet.providers.routing.router import Router, by_price
from baatcheet.providers.routing.table import Routes
from tests.providers.routing.conftest import MakeCatalogue

TWO: Mapping[str, Sequence[str | Known]] = {
    "lab": ["small", "large", Known("vectors", 8_192, embedding=True)],
    "den": ["small", Known("eyes", 8_192, vision=True), Known("wide", 900_000)],
}
EPOCH: Any = 0  # a route of an operator's own has a date


def route(name: str, *steps: str | tuple[str, int], **more: Any) -> Route:
    made = tuple([Step(one) if isinstance(one, str) else Step(*one) for one in steps])
    return Route(name, made, updated_at=EPOCH, **more)


def ids(targets: Sequence[Target]) -> list[str]:
    return [one.model.id for one in targets]


async def test_a_name_that_is_no_route_is_the_catalogues(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO))
    found = await router.resolve("small")
    assert ids(found) == ["lab/small", "den/small"]
    assert found[0].reason == "asked for by name"
    assert ids(await router.resolve(None)) == ["lab/small", "den/small"]
    assert [one.reason for one in await router.resolve("auto")] == [
        "auto: the default model",
        "auto: another provider's default",
    ]
    assert ids(await router.resolve_embedding("vectors")) == ["lab/vectors"]


async def test_a_route_leads_to_its_models_in_their_order(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO), Routes([route("way", "den/wide", "lab/large", "small")]))
    found = await router.resolve("way")
    assert ids(found) == ["den/wide", "lab/large", "lab/small", "den/small"]
    assert found[1].reason == "route way: 2 of 4 in its order"


async def test_what_nobody_serves_is_passed_over_and_looked_for_again_later(
    catalogue_of: MakeCatalogue,
) -> None:
    now = 0.0
    catalogue = catalogue_of(TWO)
    router = Router(catalogue, Routes([route("way", "lab/gone", "lab/large")]), clock=lambda: now)
    assert ids(await router.resolve("way")) == ["lab/large"]
    catalogue.known[0].listing._cards["gone"] = Known("gone", 1_000).card("lab")
    assert ids(await router.resolve("way")) == ["lab/large"]
    now = 6.0
    assert ids(await router.resolve("way")) == ["lab/gone", "lab/large"]


async def test_a_provider_without_a_key_is_passed_over_until_it_has_one(catalogue_of: MakeCatalogue) -> None:
    catalogue = catalogue_of({**TWO, "shut": ["small"]}, without_key=["shut"])
    router = Router(catalogue, Routes([route("way", "shut/small", "den/wide")]))
    assert ids(await router.resolve("way")) == ["den/wide"]
    key = SecretKey("sk-of-the-shut-one")
    catalogue.known[-1].pool.replace([PooledKey("f" * 32, key.hint, key)])
    assert ids(await router.resolve("way")) == ["shut/small", "den/wide"]


async def test_a_route_may_lead_by_way_of_another(catalogue_of: MakeCatalogue) -> None:
    routes = Routes([route("inner", "den/wide", "lab/large"), route("outer", "lab/small", "inner", "auto")])
    found = await Router(catalogue_of(TWO), routes).resolve("outer")
    assert ids(found) == ["lab/small", "den/wide", "lab/large", "den/small"]


async def test_routes_that_were_written_in_a_circle_still_end(catalogue_of: MakeCatalogue) -> None:
    routes = Routes([route("one", "two", "lab/small"), route("two", "one", "lab/large")])
    assert ids(await Router(catalogue_of(TWO), routes).resolve("one")) == ["lab/large", "lab/small"]


async def test_a_route_that_leads_to_nobody_is_refused_with_its_models(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO), Routes([route("way", "lab/gone", "nobody/has-this")]))
    with pytest.raises(
        RouteUnfit, match=r"None of the models of the route 'way' .* lab/gone, nobody/has-this"
    ):
        await router.resolve("way")


async def test_a_misspelt_route_is_suggested(catalogue_of: MakeCatalogue) -> None:
    with pytest.raises(UnknownModel) as raised:
        await Router(catalogue_of(TWO)).resolve("fasst")
    assert raised.value.near[0] == "fast"


async def test_no_route_leads_to_embeddings(catalogue_of: MakeCatalogue) -> None:
    with pytest.raises(RouteUnfit, match="name one model"):
        await Router(catalogue_of(TWO)).resolve_embedding("fast")


async def test_the_strategies_have_what_they_choose_by(catalogue_of: MakeCatalogue) -> None:
    steps = ("lab/small", "lab/large", "den/wide")
    routes = Routes(
        [
            route("quick", *steps, strategy="fastest"),
            route("thrifty", *steps, strategy="cheapest"),
            route("mixed", *[(one, 1) for one in steps], strategy="weighted"),
        ]
    )
    latencies = Latencies()
    latencies.first_token("den", "wide", 0.1)
    latencies.first_token("lab", "large", 0.2)
    prices = Prices({"lab/large": Price(Decimal(1), Decimal(2)), "lab/small": Price(Decimal(2), Decimal(1))})
    draws = itertools.cycle([0.9, 0.1, 0.5])
    router = Router(
        catalogue_of(TWO), routes, latencies=latencies, cost=by_price(prices), draw=lambda: next(draws)
    )
    assert ids(await router.resolve("thrifty")) == ["lab/large", "lab/small", "den/wide"]
    assert ids(await router.resolve("quick")) == ["den/wide", "lab/large", "lab/small"]
    draws = itertools.cycle([0.9, 0.1, 0.5])
    assert ids(await router.resolve("mixed")) == ["lab/large", "den/wide", "lab/small"]


# What comes with it ------------------------------------------------------------------------------------------


async def test_the_built_in_routes_lead_somewhere_whatever_there_is(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO))
    assert ids(await router.resolve("fast")) == ["lab/small", "den/small"]
    assert ids(await router.resolve("vision")) == ["den/eyes"]
    assert ids(await router.resolve("long"))[0] == "den/wide"
    assert (await router.resolve("long"))[0].reason == (
        "route long: none of its models is served; the widest window"
    )
    assert [one.name for one in await router.usable()] == ["fast", "long", "smart", "vision"]


async def test_the_demo_stands_in_for_every_one_of_them(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of({}))
    for name in ("fast", "smart", "vision", "long"):
        assert [one.model.provider for one in await router.resolve(name)] == ["demo"]


async def test_where_nobody_sees_there_is_no_vision(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of({"lab": ["small"]}))
    with pytest.raises(RouteUnfit, match="None of the models of the route 'vision'"):
        await router.resolve("vision")
    assert [one.name for one in await router.usable()] == ["fast", "long", "smart"]


async def test_a_built_in_route_follows_the_first_key(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of({**TWO, "groq": ["openai/gpt-oss-20b", "llama-3.1-8b-instant"]}))
    assert ids(await router.resolve("fast")) == ["groq/llama-3.1-8b-instant", "groq/openai/gpt-oss-20b"]


async def test_a_router_of_models_may_list_another_providers_name(catalogue_of: MakeCatalogue) -> None:
    catalogue = catalogue_of({"openai": ["gpt-5"], "openrouter": ["openai/gpt-5"]}, without_key=["openai"])
    assert ids(await Router(catalogue).resolve("smart")) == ["openrouter/openai/gpt-5"]


async def test_an_operators_route_takes_the_place_of_a_built_in_one(catalogue_of: MakeCatalogue) -> None:
    routes = Routes([route("fast", "den/wide")])
    router = Router(catalogue_of(TWO), routes)
    assert ids(await router.resolve("fast")) == ["den/wide"]
    routes.replace([])
    assert ids(await router.resolve("fast")) == ["lab/small", "den/small"]


# auto --------------------------------------------------------------------------------------------------------


async def test_the_default_model_may_be_a_route(catalogue_of: MakeCatalogue) -> None:
    catalogue = catalogue_of(TWO, default_model="way")
    router = Router(catalogue, Routes([route("way", "lab/large")]), default_model="way")
    for name in (None, "auto"):
        assert ids(await router.resolve(name)) == ["lab/large", "den/small"]
    assert ids(await router.resolve("smart")) == ["lab/small", "den/small"]


async def test_a_route_called_auto_takes_the_place_of_all_defaults(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO, default_model="lab/large"), Routes([route("auto", "den/wide")]))
    for name in (None, "auto"):
        assert ids(await router.resolve(name)) == ["den/wide"]


# Tasks -------------------------------------------------------------------------------------------------------


async def test_a_route_is_asked_only_for_what_it_is_for(catalogue_of: MakeCatalogue) -> None:
    router = Router(catalogue_of(TWO), Routes([route("reading", "den/eyes", tasks=("ocr",))]))
    assert ids(await router.for_task("ocr").resolve("reading")) == ["den/eyes"]
    with pytest.raises(RouteUnfit, match="is for ocr, not for chat"):
        await router.resolve("reading")
    with pytest.raises(RouteUnfit, match="is for chat, not for ocr"):
        await router.for_task("ocr").resolve("fast")


async def test_a_picture_goes_to_those_that_see_first_where_the_route_says_so(
    catalogue_of: MakeCatalogue,
) -> None:
    steps = ("lab/large", "den/eyes")
    routes = Routes([route("both", *steps, tasks=("chat", "vision")), route("texts", *steps)])
    router = Router(catalogue_of(TWO), routes)
    assert ids(await router.resolve("both")) == ["lab/large", "den/eyes"]
    assert ids(await router.for_task("vision").resolve("both")) == ["den/eyes", "lab/large"]
    assert ids(await router.for_task("vision").resolve("texts")) == ["lab/large", "den/eyes"]


async def test_speech_is_routed_too(catalogue_of: MakeCatalogue) -> None:
    routes = Routes(
        [
            route("heard", "lab/whisper-2", "inner", "gone/whisper", tasks=("transcription",)),
            route("inner", "den/whisper-1", "heard", tasks=("transcription",)),
        ]
    )
    router = Router(catalogue_of(TWO, transcribes={"lab": ["whisper-1"]}), routes)
    found = [(one.provider.name, one.model) for one in router.speakers("heard")]
    assert found == [("lab", "whisper-2"), ("den", "whisper-1")]
    with pytest.raises(RouteUnfit):
        router.speakers("fast")
    with pytest.raises(RouteUnfit, match="is for transcription, not for chat"):
        await router.resolve("heard")


# Circles -----------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.sampled_from("abcdefxy"), min_size=1, max_size=4, unique=True),
        min_size=1,
    )
)
def test_a_circle_is_found_exactly_where_a_route_can_be_reached_from_itself(
    ways: dict[str, list[str]],
) -> None:
    routes = {name: route(name, *steps) for name, steps in ways.items()}
    for name, one in routes.items():
        reached, left = set[str](), list(ways[name])
        while left:
            step = left.pop()
            if step not in reached:
                reached.add(step)
                left += ways.get(step, [])
        loop = loop_of(one, [other for other in routes.values() if other is not one])
        assert (loop is not None) == (name in reached)
        if loop is not None:
            assert loop[0] == loop[-1] == name
            assert all(after in ways[before] for before, after in itertools.pairwise(loop))
