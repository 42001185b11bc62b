"""The interface that every provider answers, and the values that pass through it.

The house's own language for a chat is OpenAI's: a request body as a mapping, a reply as
`chat.completion.chunk` objects. An adapter whose provider speaks otherwise translates at this seam.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec

from baatcheet.keys.secret import SecretKey

if TYPE_CHECKING:
    from baatcheet.providers.discovery import Listing
    from baatcheet.providers.profiles import Profile

Body = Mapping[str, Any]
OpenAIEncoding = Literal["o200k_base", "cl100k_base"]
Encoding = Literal[
    "o200k_base", "cl100k_base", "llama3", "deepseek_v3", "gemma2", "gemma3", "qwen3", "mistral_v3"
]
"""A vocabulary. Beyond OpenAI's own, they are at hand when the extra `tokenizers` is installed."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model at one provider: what it is called and what it can do."""

    provider: str
    name: str  # as the provider calls it
    context_window: int  # tokens, prompt and reply together
    window_stated: bool = True  # somebody said so; False: it is assumed
    max_output: int | None = None  # tokens of one reply, where the provider says
    encoding: Encoding = "o200k_base"
    exact_encoding: bool = False  # whether `encoding` is this model's own vocabulary
    embedding: bool = False
    vision: bool = False
    tools: bool = True
    streams: bool = True
    created: int = 0  # Unix seconds, 0 when unknown

    @property
    def id(self) -> str:
        """The name that clients use: `provider/name`."""
        return f"{self.provider}/{self.name}"


MOST_TOKENS = 2**31 - 1  # that a table's integer holds
KIND_OF_TOKENS = r"^[\w.-]{1,64}$"

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
TokensByKind = dict[Annotated[str, msgspec.Meta(pattern=KIND_OF_TOKENS)], Tokens | None]


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens, as the provider reports them (OpenAI's `usage` object), in bounds: they can be added up and stored."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0
    prompt_tokens_details: TokensByKind | None = None
    completion_tokens_details: TokensByKind | None = None


class Chunk(msgspec.Struct):
    """One `chat.completion.chunk`, checked and ready to be forwarded.

    `raw` is its JSON on one line. A chunk is *plain* when its first choice's delta holds nothing but
    text (`choice` is None then); otherwise `choice` is that choice, decoded. A usage-only chunk has neither.
    """

    raw: bytes
    text: str = ""
    choice: dict[str, Any] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None


class Completion(msgspec.Struct):
    """One `chat.completion`, checked and ready to be forwarded: `raw` is its JSON."""

    raw: bytes
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """A recording to be transcribed, and how. `audio` is a file's content, of the kind that its name says."""

    audio: bytes
    filename: str
    media_type: str
    language: str | None = None  # ISO 639-1
    prompt: str | None = None
    temperature: float | None = None
    words: bool = False  # whether the times of words are wanted, too


class Access(Protocol):
    """One use of one key: what an adapter sends, and what it tells of the answer."""

    @property
    def key(self) -> SecretKey: ...

    def heard(self, headers: Mapping[str, str]) -> None:
        """The headers of an answer, whatever its status: some say how much of the key's quota is left."""
        ...


class Adapter(Protocol):
    """One wire protocol, spoken to one provider; each call with a key of its own, or with none.

    As in `Provider`, every method raises `ProviderError` and nothing else. No message of one holds a key.
    """

    @property
    def profile(self) -> "Profile": ...

    @property
    def listing(self) -> "Listing": ...

    def stream(
        self, model: ModelCard, body: Body, access: Access | None
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        """As `Provider.stream`. A failure before the first chunk may be raised by entering or by the iterator."""
        ...

    async def complete(self, model: ModelCard, body: Body, access: Access | None) -> Completion: ...

    async def embed(self, model: ModelCard, body: Body, access: Access | None) -> bytes: ...

    async def transcribe(self, model: str, speech: Speech, access: Access | None) -> bytes: ...

    async def check(self, access: Access | None) -> int:
        """How many models it lists now: its cheapest call. A refused key's error is of the kind `unauthorized`."""
        ...

    async def close(self) -> None: ...


class Provider(Protocol):
    """One place that runs models. Every method raises `ProviderError` and nothing else."""

    @property
    def name(self) -> str: ...

    async def models(self) -> Sequence[ModelCard]:
        """What it serves now; answered from memory after the first time, refreshed in the background."""
        ...

    def stream(self, model: ModelCard, body: Body) -> AbstractAsyncContextManager[AsyncIterator[list[Chunk]]]:
        """Ask for a streamed reply.

        Entering sends the request and returns once the provider has accepted it. The iterator yields what
        arrived together as one list, ends after the provider's own end of stream, and raises when the
        stream is cut, silent for too long or malformed. Leaving closes the connection, which stops a
        generation that is still going on. Usage is always asked for.
        """
        ...

    async def complete(self, model: ModelCard, body: Body) -> Completion:
        """Ask for a whole reply at once."""
        ...

    async def embed(self, model: ModelCard, body: Body) -> bytes:
        """The provider's answer to an OpenAI embeddings request, as JSON."""
        ...

    async def transcribe(self, model: str, speech: Speech) -> bytes:
        """The provider's answer to an OpenAI transcription request, as JSON: as detailed as `model` can give it."""
        ...

    async def close(self) -> None:
        """Let go of connections and background work."""
        ...


_TOO_LONG = re.compile(
    r"context (?:length|window|size)|maximum context|prompt is too long|input is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)

FailureKind = Literal[
    "unreachable",  # no connection, or TLS refused
    "timeout",  # no first token, or silence between tokens
    "rate_limited",  # 429
    "unauthorized",  # 401, 402, 403: the key, not the request
    "rejected",  # any other 4xx: the request is at fault and is not tried elsewhere
    "overloaded",  # 5xx
    "malformed",  # an answer that can't be read
    "cut",  # the stream ended before its end
]


@dataclass(eq=False)
class ProviderError(Exception):
    """A provider did not answer as asked. `message` is fit for a client: it holds no key."""

    provider: str
    kind: FailureKind
    message: str
    status: int | None = None  # what the provider answered, if it did
    retry_after: float | None = None  # seconds
    type: str | None = None  # OpenAI's `error.type`, `.param`, `.code`, when it gave them
    param: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}: {self.message}"

    @property
    def another_may_answer(self) -> bool:
        """Whether the same request may succeed at another provider."""
        return self.kind != "rejected"

    @property
    def too_long(self) -> bool:
        """Whether the prompt was refused for its length: OpenAI has a code for that, others have words."""
        return self.kind == "rejected" and (
            self.code == "context_length_exceeded" or _TOO_LONG.search(self.message) is not None
        )


@dataclass(frozen=True)
class Target:
    """A model at the provider that will be asked for it."""

    provider: Provider
    model: ModelCard
    reason: str = ""  # why it is asked, and asked now; for the record


@dataclass
class Attempt:
    """One provider that was tried and did not answer."""

    provider: str
    model: str
    kind: FailureKind
    message: str


@dataclass(eq=False)
class AllProvidersFailed(Exception):
    """Every provider that has this model was tried and none answered."""

    attempts: list[Attempt] = field(default_factory=list)
    retry_after: float | None = None
    last: ProviderError | None = None

    def __str__(self) -> str:
        return (
            "; ".join(f"{a.provider} ({a.model}): {a.message}" for a in self.attempts)
            or "no provider is configured"
        )
