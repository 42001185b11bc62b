"""What is known of each provider and its models beforehand, as data.

A list is a starting point: what the provider's own `/models` says is believed over it (see `discovery`).
"""

from dataclasses import dataclass, field
from typing import Literal

from baatcheet.providers.families import family_of
from baatcheet.providers.model import Encoding, ModelCard

MaxTokensName = Literal["max_tokens", "max_completion_tokens"]
Protocol = Literal["openai", "anthropic"]

GUESS: Encoding = "o200k_base"  # what estimates are made from


def encoding_of(name: str) -> Encoding | None:
    """The vocabulary of the model that is called so, where its family's is known."""
    family = family_of(name)
    return family.encoding if family else None


@dataclass(frozen=True)
class Known:
    """One model of a profile. Sizes are tokens."""

    name: str
    context_window: int
    max_output: int | None = None
    encoding: Encoding | None = None  # its own vocabulary; None: its family's, as its name says
    embedding: bool = False
    vision: bool = False
    tools: bool = True
    window_stated: bool = True

    def card(self, provider: str) -> ModelCard:
        encoding = self.encoding or encoding_of(self.name)
        return ModelCard(
            provider=provider,
            name=self.name,
            context_window=self.context_window,
            window_stated=self.window_stated,
            max_output=self.max_output,
            encoding=encoding or GUESS,
            exact_encoding=encoding is not None,
            embedding=self.embedding,
            vision=self.vision,
            tools=self.tools and not self.embedding,
            streams=not self.embedding,
        )


@dataclass(frozen=True)
class Profile:
    """One provider: where it is, which protocol it speaks, what it serves, how its dialect differs."""

    name: str
    base_url: str
    default_model: str | None = None  # None: the first that it lists
    models: tuple[Known, ...] = ()
    transcribes: tuple[str, ...] = ()  # models that turn speech into text, the preferred one first
    open: bool = False  # a model that is not listed is asked for all the same
    discover: bool = True  # whether GET /models is asked
    default_window: int = 32_768  # tokens, for models that say nothing of theirs
    window_stated: bool = False  # whether that is more than an assumption
    default_encoding: Encoding | None = None  # of all its models; None: as their names say
    max_tokens_name: MaxTokensName | None = None  # the only name it takes; None: what the client wrote
    stream_options: bool = True
    optional: bool = False  # it may come and go: listed only while it answers
    id_prefix: str = ""  # what its list puts before each name
    not_chat: str = ""  # names in its list that match this do neither chat nor embed
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # a gateway's key may be one
    protocol: Protocol = "openai"


GROQ = Profile(
    name="groq",
    base_url="https://api.groq.com/openai/v1",
    default_model="llama-3.3-70b-versatile",
    models=(
        Known("llama-3.3-70b-versatile", 131_072, 32_768),
        Known("llama-3.1-8b-instant", 131_072, 131_072),
        Known("openai/gpt-oss-120b", 131_072, 65_536),
        Known("openai/gpt-oss-20b", 131_072, 65_536),
        Known("meta-llama/llama-4-scout-17b-16e-instruct", 131_072, 8_192, vision=True),
        Known("meta-llama/llama-4-maverick-17b-128e-instruct", 131_072, 8_192, vision=True),
        Known("qwen/qwen3-32b", 131_072, 40_960),
    ),
    transcribes=("whisper-large-v3-turbo", "whisper-large-v3"),
    not_chat=r"whisper|tts|guard|orpheus|safeguard",
)

OPENROUTER = Profile(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    default_model="meta-llama/llama-3.3-70b-instruct",
    models=(Known("meta-llama/llama-3.3-70b-instruct", 131_072),),
    open=True,
)

DEEPSEEK = Profile(
    name="deepseek",
    base_url="https://api.deepseek.com/v1",
    default_model="deepseek-chat",
    models=(
        Known("deepseek-chat", 131_072, 8_192),
        Known("deepseek-reasoner", 131_072, 65_536),
    ),
    default_window=65_536,
    max_tokens_name="max_tokens",
)

# The key travels in the Authorization header; Google's own `?key=` form would put it into URLs and logs.
GEMINI = Profile(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    default_model="gemini-2.5-flash",
    models=(
        Known("gemini-2.5-flash", 1_048_576, 65_536, vision=True),
        Known("gemini-2.5-flash-lite", 1_048_576, 65_536, vision=True),
        Known("gemini-2.5-pro", 1_048_576, 65_536, vision=True),
        Known("gemini-embedding-001", 2_048, embedding=True),
    ),
    id_prefix="models/",
    not_chat=r"imagen|veo|aqa|tts|audio|live|lyria|image",
)

HUGGINGFACE = Profile(
    name="huggingface",
    base_url="https://router.huggingface.co/v1",
    default_model="meta-llama/Llama-3.3-70B-Instruct",
    models=(Known("meta-llama/Llama-3.3-70B-Instruct", 131_072),),
    open=True,
    max_tokens_name="max_tokens",
)

OPENAI = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    default_model="gpt-4.1-mini",
    models=(
        Known("gpt-4.1-mini", 1_047_576, 32_768, vision=True),
        Known("gpt-4.1", 1_047_576, 32_768, vision=True),
        Known("gpt-4.1-nano", 1_047_576, 32_768, vision=True),
        Known("gpt-4o", 128_000, 16_384, vision=True),
        Known("gpt-4o-mini", 128_000, 16_384, vision=True),
        Known("gpt-5", 400_000, 128_000, vision=True),
        Known("gpt-5-mini", 400_000, 128_000, vision=True),
        Known("gpt-5-nano", 400_000, 128_000, vision=True),
        Known("o3", 200_000, 100_000, vision=True),
        Known("o4-mini", 200_000, 100_000, vision=True),
        Known("text-embedding-3-small", 8_192, embedding=True),
        Known("text-embedding-3-large", 8_192, embedding=True),
        Known("text-embedding-ada-002", 8_192, embedding=True),
    ),
    transcribes=("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
    default_window=128_000,
    not_chat=r"whisper|tts|dall-e|moderation|realtime|transcribe|audio|image|sora|davinci|babbage|-instruct",
    # Its reasoning models refuse the older name; its other models take both.
    max_tokens_name="max_completion_tokens",
)

# Windows and longest replies: platform.claude.com/docs/en/models, October 2026, where each model has its page; what
# `/models` says of them is believed over it. How many tokens a text has, only the provider knows: its vocabularies are
# not published.
ANTHROPIC = Profile(
    name="anthropic",
    base_url="https://api.anthropic.com/v1",
    protocol="anthropic",
    default_model="claude-sonnet-5-5",
    models=(
        Known("claude-sonnet-5-5", 1_000_000, 128_000, vision=True),
        Known("claude-opus-5-5", 1_000_000, 128_000, vision=True),
        Known("claude-haiku-5-5", 1_000_000, 128_000, vision=True),
        Known("claude-fable-5-2", 1_000_000, 128_000, vision=True),
        Known("claude-fable-5-1", 1_000_000, 128_000, vision=True),
        Known("claude-opus-5", 1_000_000, 128_000, vision=True),
        Known("claude-sonnet-5", 1_000_000, 128_000, vision=True),
        Known("claude-opus-4-8", 1_000_000, 128_000, vision=True),
        Known("claude-opus-4-7", 1_000_000, 128_000, vision=True),
        Known("claude-opus-4-6", 1_000_000, 128_000, vision=True),
        Known("claude-sonnet-4-6", 1_000_000, 64_000, vision=True),
        Known("claude-haiku-4-5", 200_000, 64_000, vision=True),
    ),
    default_window=200_000,
)

# Ollama cuts a prompt that is longer than the context it was started with, silently, and does not say over
# this protocol how long that is: its own default is all that can be relied on.
OLLAMA = Profile(
    name="ollama",
    base_url="http://127.0.0.1:11434/v1",
    default_window=4_096,
    max_tokens_name="max_tokens",
    optional=True,
)

BUILT_IN: tuple[Profile, ...] = (GROQ, OPENROUTER, DEEPSEEK, GEMINI, HUGGINGFACE, ANTHROPIC, OPENAI, OLLAMA)
RESERVED = frozenset({"auto", "demo"} | {profile.name for profile in BUILT_IN})
