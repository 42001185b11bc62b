"""What the contract suite needs of one protocol: a fake provider of it, and an adapter that speaks to that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from baatcheet.keys.secret import SecretKey
from baatcheet.providers.adapters.anthropic import AnthropicAdapter
from baatcheet.providers.adapters.http import TimeLimits
from baatcheet.providers.adapters.openai import OpenAIAdapter
from baatcheet.providers.model import Access, Adapter
from baatcheet.providers.profiles import Profile
from tests.providers.adapters.fake_anthropic import FakeAnthropic
from tests.scripted_provider import ScriptedProvider
from tests.scripted_provider.server import Recorded

KEY = "sk-secret/key+1234"


@dataclass
class Loan:
    """One use of one key, which keeps what it is told."""

    key: SecretKey = field(default_factory=lambda: SecretKey(KEY))
    told: list[Mapping[str, str]] = field(default_factory=list)

    def heard(self, headers: Mapping[str, str]) -> None:
        self.told.append(headers)


@dataclass(frozen=True)
class Protocol:
    """One wire protocol, by its fake and by its adapter."""

    name: str
    fake: Callable[[], ScriptedProvider]
    make: Callable[..., Adapter]
    path: str  # of a chat
    key_header: str
    key_prefix: str = ""

    def sent_key(self, recorded: Recorded) -> str | None:
        sent = recorded.headers.get(self.key_header)
        return None if sent is None else sent.removeprefix(self.key_prefix)


OPENAI = Protocol(
    "openai", ScriptedProvider, OpenAIAdapter, "/v1/chat/completions", "authorization", "Bearer "
)
ANTHROPIC = Protocol("anthropic", FakeAnthropic, AnthropicAdapter, "/v1/messages", "x-api-key")
PROTOCOLS = (OPENAI, ANTHROPIC)


@dataclass
class Bench:
    """One protocol's fake, running, and adapters that speak to it."""

    protocol: Protocol
    upstream: ScriptedProvider
    session: aiohttp.ClientSession
    made: list[Adapter] = field(default_factory=list)

    def adapter(
        self,
        limits: TimeLimits | None = None,
        base_url: str | None = None,
        access: Callable[[], Access | None] = lambda: None,
        **profile: Any,
    ) -> Adapter:
        described = Profile("lab", base_url or self.upstream.base_url, **profile)
        made = self.protocol.make(
            described, self.session, access=access, limits=limits or TimeLimits(2, 2, 2)
        )
        self.made.append(made)
        return made
