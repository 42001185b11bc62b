"""Every configured provider, and who serves the model that a request names."""

import asyncio
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from urllib.parse import urlsplit

import aiohttp

from baatcheet.keys.pools import Pools
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.http import require_tls
from baatcheet.platform.settings import CustomProvider, ProviderSettings, SettingsError
from baatcheet.providers import profiles
from baatcheet.providers.adapters.anthropic import AnthropicAdapter
from baatcheet.providers.adapters.demo import CARD as DEMO_CARD
from baatcheet.providers.adapters.demo import DemoProvider
from baatcheet.providers.adapters.openai import OpenAIAdapter, TimeLimits
from baatcheet.providers.model import Adapter, ModelCard, Provider, Target
from baatcheet.providers.pooled import Loan, PooledProvider, loan_of
from baatcheet.providers.profiles import Known, Profile, Protocol

AUTO = "auto"
ADAPTERS: Mapping[Protocol, Callable[..., Adapter]] = MappingProxyType(
    {"openai": OpenAIAdapter, "anthropic": AnthropicAdapter}
)
_NEAR = 3


class UnknownModel(Exception):
    """No configured provider serves this model."""

    def __init__(self, name: str, near: list[str]) -> None:
        super().__init__(name)
        self.name = name
        self.near = near  # ids that are spelt alike, nearest first

    def __str__(self) -> str:
        hint = f" Did you mean {' or '.join(self.near)}?" if self.near else ""
        return f"The model {self.name!r} is not served by any configured provider.{hint}"


class UnknownProvider(Exception):
    """There is no provider of this name."""


class Catalogue:
    """The providers in the order in which they are tried. `demo` stands in while none but optional ones can be used.

    A provider whose first key comes later is there from then on, and one whose last key goes is not.
    """

    def __init__(
        self,
        providers: Sequence[PooledProvider],
        *,
        pools: Pools | None = None,
        demo: DemoProvider | None = None,
        default_model: str | None = None,
        wait: float = 5.0,
        observe: Callable[[Provider], Provider] = lambda provider: provider,
    ) -> None:
        self.pools = pools if pools is not None else Pools()
        self.known = tuple(providers)  # those without a key included
        self._by_name = {provider.name: provider for provider in self.known}
        self._stand_in = demo
        self._default_model = default_model
        self._wait = wait
        self._observe = observe

    @property
    def providers(self) -> tuple[PooledProvider, ...]:
        """Those that can be asked: they need no key, or have one."""
        return tuple([provider for provider in self.known if provider.usable])

    @property
    def _demo(self) -> DemoProvider | None:
        if self._stand_in is None or any(not one.profile.optional for one in self.providers):
            return None
        return self._stand_in

    async def probe(self, name: str, key: SecretKey) -> int:
        """How many models the provider lists to `key`: its cheapest call. Raises ProviderError, UnknownProvider."""
        provider = self._by_name.get(name)
        if provider is None:
            raise UnknownProvider(name)
        return await provider.adapter.check(Loan(key))

    async def models(self) -> list[ModelCard]:
        """All models, in the order of their providers. Waits for the network the first time only, briefly."""
        lists = await asyncio.gather(*(provider.models() for provider in self.providers))
        cards = [card for cards in lists for card in cards]
        return cards if cards or self._demo is None else [DEMO_CARD]

    async def resolve(self, name: str | None) -> tuple[Target, ...]:
        """Who is to be asked for a chat with `name`, first to last; never empty.

        None and `auto`: the default model, then every other provider's default. `provider/model`: that one. A
        bare name: every provider that lists it. Raises UnknownModel.
        """
        return self._observed(await self._targets(name))

    def _observed(self, targets: Sequence[Target]) -> tuple[Target, ...]:
        return tuple(Target(self._observe(target.provider), target.model) for target in targets)

    async def _targets(self, name: str | None) -> tuple[Target, ...]:
        if name is None or name == AUTO:
            return await self._defaults()
        found = await self._find(name)
        if not found and self._demo is not None and name in {DEMO_CARD.name, DEMO_CARD.id}:
            return (Target(self._demo, DEMO_CARD),)
        if not found:
            raise await self._unknown(name, embedding=False)
        return tuple(found)

    def named(self, name: str) -> Provider | None:
        """The provider that is called so."""
        found = self._by_name.get(name)
        return None if found is None or not found.usable else self._observe(found)

    def transcribers(self) -> list[tuple[Provider, tuple[str, ...]]]:
        """Who turns speech into text, in order, and by which models, the preferred one first."""
        return [
            (self._observe(provider), provider.profile.transcribes)
            for provider in self.providers
            if provider.profile.transcribes
        ]

    async def resolve_embedding(self, name: str | None) -> tuple[Target, ...]:
        """Who is to be asked for embeddings by `name`; every one of them makes the same vectors.

        None and `auto`: the first embedding model. Raises UnknownModel.
        """
        return self._observed(await self._embedding_targets(name))

    async def _embedding_targets(self, name: str | None) -> tuple[Target, ...]:
        if name is None or name == AUTO:
            cards = await self.models()
            first = next((card for card in cards if card.embedding), None)
            if first is None:
                raise UnknownModel(AUTO, [])
            return (Target(self._by_name[first.provider], first),)
        found = await self._find(name)
        if not found:
            raise await self._unknown(name, embedding=True)
        return tuple(target for target in found if target.model.embedding) or tuple(found)

    async def _defaults(self) -> tuple[Target, ...]:
        chosen = await self._targets(self._default_model) if self._default_model not in {None, AUTO} else ()
        asked = {target.model.provider for target in chosen}
        ready = any(provider.listing.default is not None for provider in self.providers)
        # Nobody waits for an Ollama that may not be there while somebody else can answer.
        unsure = [
            p for p in self.providers if p.listing.default is None and not (ready and p.profile.optional)
        ]
        await asyncio.gather(*(provider.listing.look(wait=self._wait) for provider in unsure))
        others = [
            Target(provider, card)
            for provider in self.providers
            if provider.name not in asked and (card := provider.listing.default) is not None
        ]
        if chosen or others:
            self._keep_up()
            return (*chosen, *others)
        if self._demo is not None:
            return (Target(self._demo, DEMO_CARD),)
        raise await self._unknown(AUTO, embedding=False)

    def _keep_up(self) -> None:
        """Begin to follow the lists of providers that nobody has had to wait for."""
        for provider in self.providers:
            provider.listing.start()

    async def _find(self, name: str) -> list[Target]:
        prefix, _, rest = name.partition("/")
        provider = self._by_name.get(prefix)
        if provider is not None and provider.usable and rest:
            card = provider.listing.find(rest)
            if card is None:
                await provider.listing.look(wait=self._wait)
                card = provider.listing.find(rest)
            if card is None and provider.listing.passes_on:
                card = provider.listing.unlisted(rest)
            if card is not None:
                provider.listing.start()
                return [Target(provider, card)]
        unsettled = [one.listing for one in self.providers if not one.listing.settled]
        if unsettled:
            await asyncio.gather(*(listing.look(wait=self._wait) for listing in unsettled))
        listed = ((one, one.listing.find(name)) for one in self.providers)
        return [Target(one, card) for one, card in listed if card is not None]

    async def _unknown(self, name: str, *, embedding: bool) -> UnknownModel:
        cards = [card for card in await self.models() if card.embedding == embedding]
        ids = {card.id.lower(): card.id for card in cards}
        names = {card.name.lower(): card.id for card in reversed(cards)}
        near = difflib.get_close_matches(name.lower(), [*ids, *names], n=_NEAR * 2, cutoff=0.6)
        found = dict.fromkeys(ids.get(one) or names[one] for one in near)
        return UnknownModel(name, list(found)[:_NEAR])

    async def close(self) -> None:
        """Stop background work. The session belongs to whoever made it."""
        await asyncio.gather(*(provider.close() for provider in self.known))


def build_catalogue(
    settings: ProviderSettings,
    session: aiohttp.ClientSession,
    pools: Pools | None = None,
    *,
    observe: Callable[[Provider], Provider] = lambda provider: provider,
) -> Catalogue:
    """The catalogue that `settings` describe, with the keys of `pools`; `observe` is put around each provider.

    Without pools, there are only the providers that need no key.

    Raises SettingsError for what can't be served safely.
    """
    pools = pools if pools is not None else Pools()
    limits = TimeLimits(settings.connect_timeout, settings.first_token_timeout, settings.idle_timeout)
    configured = _ordered(settings, [*_custom(settings), *_built_in(settings)])
    providers = [
        _provider(profile, session, pools, limits, keyless=keyless) for profile, keyless in configured
    ]
    _check_default(settings.default_model, {one.name for one in providers if one.usable})
    return Catalogue(
        providers,
        pools=pools,
        demo=DemoProvider(),
        default_model=settings.default_model,
        wait=settings.connect_timeout,
        observe=observe,
    )


Configured = tuple[Profile, bool]  # and whether it is asked without a key, too


def _provider(
    profile: Profile, session: aiohttp.ClientSession, pools: Pools, limits: TimeLimits, *, keyless: bool
) -> PooledProvider:
    pool = pools.of(profile.name)
    adapter: Adapter = ADAPTERS[profile.protocol](
        profile, session, access=lambda: loan_of(pool), limits=limits
    )
    return PooledProvider(adapter, pool, keyless=keyless, patience=limits.first_token, wait=limits.connect)


def _custom(settings: ProviderSettings) -> list[Configured]:
    seen: set[str] = set()
    for custom in settings.custom:
        if custom.name in profiles.RESERVED:
            raise SettingsError(
                f"BAATCHEET_PROVIDERS: {custom.name!r} is the name of a built-in provider. "
                f"Choose another name, for example my-{custom.name}."
            )
        if custom.name in seen:
            raise SettingsError(f"BAATCHEET_PROVIDERS: two providers are called {custom.name!r}.")
        seen.add(custom.name)
        require_tls("BAATCHEET_PROVIDERS", custom.name, custom.base_url, allow_insecure=custom.allow_insecure)
    return [(_custom_profile(custom), True) for custom in settings.custom]


def _custom_profile(custom: CustomProvider) -> Profile:
    stated = "context_window" in custom.model_fields_set

    def known(name: str, *, embedding: bool) -> Known:
        return Known(
            name, custom.context_window, encoding=custom.encoding, embedding=embedding, window_stated=stated
        )

    names = custom.models
    if names and custom.default_model and custom.default_model not in names:
        names = (*names, custom.default_model)
    models = [known(name, embedding=False) for name in names]
    return Profile(
        name=custom.name,
        base_url=custom.base_url,
        default_model=custom.default_model,
        models=(*models, *(known(name, embedding=True) for name in custom.embedding_models)),
        open=not custom.models,
        discover=not custom.models,
        default_window=custom.context_window,
        window_stated=stated,
        default_encoding=custom.encoding,
        headers={name: value.get_secret_value() for name, value in custom.headers.items()},
    )


def _built_in(settings: ProviderSettings) -> list[Configured]:
    found: list[Configured] = [
        (profile, False)
        for profile in profiles.BUILT_IN
        if profile.name not in {"openai", "ollama"} and profile.protocol in ADAPTERS
    ]
    if settings.openai_base_url is not None:
        require_tls("OPENAI_BASE_URL", "openai", settings.openai_base_url)
        found.append((_openai_at(settings.openai_base_url), True))
    else:
        found.append((profiles.OPENAI, False))
    if settings.ollama_url:
        url = _ollama_address(settings.ollama_url)
        require_tls("OLLAMA_HOST", "ollama", url)
        found.append((replace(profiles.OLLAMA, base_url=f"{url}/v1"), True))
    return found


def _openai_at(base_url: str) -> Profile:
    """OpenAI's own profile at its own address; at any other, one of which nothing is known beforehand."""
    if urlsplit(base_url).hostname == urlsplit(profiles.OPENAI.base_url).hostname:
        return replace(profiles.OPENAI, base_url=base_url)
    return Profile(name=profiles.OPENAI.name, base_url=base_url, open=True)


def _ollama_address(value: str) -> str:
    """OLLAMA_HOST as Ollama reads it: perhaps without a scheme or port, perhaps an address to listen on."""
    url = value if re.match(r"https?://", value) else f"http://{value}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(
            "OLLAMA_HOST: is not an address. Example: OLLAMA_HOST=http://127.0.0.1:11434"
        ) from None
    if parts.username is not None or not host:
        return url  # refused by the caller, with its reason
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what it listens on, reached locally
    shown = f"[{host}]" if ":" in host else host
    port = port or (443 if parts.scheme == "https" else 11_434)
    return f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/').removesuffix('/v1')}"


def _ordered(settings: ProviderSettings, configured: list[Configured]) -> list[Configured]:
    known = profiles.RESERVED - {AUTO} | {profile.name for profile, _ in configured}
    for name in settings.order:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(sorted(known))}."
            raise SettingsError(f"BAATCHEET_PROVIDER_ORDER: there is no provider {name!r}.{hint}")
    rank = {name: at for at, name in enumerate(settings.order)}
    return sorted(configured, key=lambda one: rank.get(one[0].name, len(rank)))


def _check_default(default: str | None, configured: set[str]) -> None:
    """A default that names a provider which is not there would fail every chat: better now."""
    prefix, slash, _ = (default or "").partition("/")
    built_in = {profile.name for profile in profiles.BUILT_IN}
    # "openai/gpt-oss-20b" may as well be a model's own name at another provider.
    if slash and prefix in built_in - configured - {profiles.OPENAI.name}:
        raise SettingsError(
            f"BAATCHEET_DEFAULT_MODEL: names the provider {prefix!r}, which is not configured. Set its key, "
            "or choose a model of another. Example: BAATCHEET_DEFAULT_MODEL=groq/llama-3.3-70b-versatile"
        )
