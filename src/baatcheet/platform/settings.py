"""Settings: small frozen groups, read once from the environment and `.env`.

Every field names its variable, an example and what it is for; `docs/reference/settings.md` is written from
these declarations (`reference()`), and a test keeps the two equal. Only entry points see the whole; everything
else is given its own group.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo

from baatcheet.platform.dotenv_file import read_file
from baatcheet.platform.key_variables import keys_in, variable_of
from baatcheet.platform.setting_types import (
    OCR_ENGINES,
    SECRET_STORES,
    Address,
    CacheAddress,
    DatabaseAddress,
    Destinations,
    Durations,
    Headers,
    Json,
    Key,
    Mailbox,
    Names,
    Networks,
    OcrEngines,
    OllamaAddress,
    Origins,
    Seconds,
    SecretStores,
    SmtpAddress,
    Token,
    usable_key,
)

PREFIX = "BAATCHEET_"


@dataclass(frozen=True)
class Env:
    """The variable that a field is read from, and a value that a person could write there."""

    name: str
    example: str


class SettingsError(Exception):
    """Some settings can't be used. `str(error)` lists each with its problem and an example."""


class Group(BaseModel):
    """Base of every settings group."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Vocabulary = Literal[
    "o200k_base", "cl100k_base", "llama3", "deepseek_v3", "gemma2", "gemma3", "qwen3", "mistral_v3"
]


class CustomProvider(Group):
    """One OpenAI-compatible server, as written in BAATCHEET_PROVIDERS."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    base_url: Address
    api_key: Key | None = None
    api_key_env: str | None = Field(None, description="The variable that holds the key.")
    models: tuple[str, ...] = Field((), description="What it serves; empty: asked from its /models.")
    embedding_models: tuple[str, ...] = ()
    default_model: str | None = None
    context_window: int = Field(32_768, gt=0, description="Tokens, for models that say nothing of theirs.")
    encoding: Vocabulary | None = Field(None, description="Their vocabulary; unset: as their names say.")
    allow_insecure: bool = Field(False, description="Allow http:// to an address that is not loopback.")
    headers: Headers = Field(default_factory=dict)


SignatureAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
SIGNATURE_ALGORITHMS: tuple[SignatureAlgorithm, ...] = get_args(SignatureAlgorithm)
ClaimPath = str | tuple[str, ...]
"""A claim's name, names joined by dots, or a list of names where a name holds a dot."""


class OidcProvider(Group):
    """One OpenID provider, as written in BAATCHEET_OIDC_PROVIDERS."""

    issuer: Address
    audiences: tuple[str, ...] = Field((), description="A token's `aud` names one of these.")
    authorized_parties: tuple[str, ...] = Field((), description="A token's `azp` is one of these.")
    algorithms: tuple[SignatureAlgorithm, ...] = Field(SIGNATURE_ALGORITHMS, min_length=1)
    jwks_uri: Address | None = Field(None, description="Unset: as the provider's discovery document says.")
    role_claim: ClaimPath | None = None
    admin_roles: tuple[str, ...] = ()
    user_roles: tuple[str, ...] = Field((), description="Empty: everybody may come in.")
    name_claim: ClaimPath = "name"
    email_claim: ClaimPath = "email"
    email_verified_claim: ClaimPath = "email_verified"
    sign_up: bool = Field(True, description="Make a user of whoever comes for the first time.")
    link_by_email: bool = Field(False, description="Or let them be the user who has their verified address.")
    leeway: float = Field(30.0, ge=0, le=300, description="Seconds that the two clocks may differ.")
    allow_insecure: bool = Field(False, description="Allow http:// to an address that is not loopback.")


class ServerSettings(Group):
    """How the API process listens, and what it accepts."""

    host: Annotated[str, Env("BAATCHEET_HOST", "0.0.0.0")] = Field(  # noqa: S104 - an example
        "127.0.0.1", description="Address to listen on."
    )
    port: Annotated[int, Env("BAATCHEET_PORT", "8080")] = Field(
        8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one."
    )
    processes: Annotated[int, Env("BAATCHEET_PROCESSES", "2")] = Field(
        1, ge=1, le=256, description="API processes that share the port."
    )
    grace_seconds: Annotated[float, Env("BAATCHEET_GRACE_SECONDS", "25")] = Field(
        25.0,
        ge=0,
        le=3600,
        description="How long running turns may go on after SIGTERM before they are marked interrupted.",
    )
    max_body_bytes: Annotated[int, Env("BAATCHEET_MAX_BODY_BYTES", "33554432")] = Field(
        32 * 1024 * 1024, ge=1024, description="Largest request body; a larger one is answered 413."
    )
    max_message_bytes: Annotated[int, Env("BAATCHEET_MAX_MESSAGE_BYTES", "16777216")] = Field(
        16 * 1024 * 1024,
        ge=1024,
        description="Largest text of one message, in UTF-8 bytes; a larger one is answered 413.",
    )
    cors_origins: Annotated[Origins, Env("BAATCHEET_CORS_ORIGINS", "https://app.example.com")] = Field(
        (), description="Origins whose pages may call the API from a browser, comma-separated; `*` for any."
    )
    trusted_proxies: Annotated[Networks, Env("BAATCHEET_TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")] = Field(
        (), description="Proxies whose X-Forwarded-For is believed: addresses or networks, comma-separated."
    )
    keep_alive_seconds: Annotated[Seconds, Env("BAATCHEET_STREAM_KEEP_ALIVE_SECONDS", "15")] = Field(
        15.0,
        description="A stream that has been silent this long gets a comment, so that proxies keep it open.",
    )


class EmbeddedSettings(Group):
    """The PostgreSQL and the Valkey that `baatcheet serve` runs when it is given none."""

    data_dir: Annotated[Path, Env("BAATCHEET_DATA_DIR", "/var/lib/baatcheet")] = Field(
        Path("data"), description="Folder of the embedded services' data."
    )
    postgres_bin: Annotated[Path | None, Env("BAATCHEET_POSTGRES_BIN", "/usr/lib/postgresql/15/bin")] = Field(
        None, description="Folder of PostgreSQL's programs; unset: those of the installed wheel."
    )
    valkey_bin: Annotated[Path | None, Env("BAATCHEET_VALKEY_BIN", "/usr/bin/redis-server")] = Field(
        None, description="A Valkey or Redis server program; unset: the one of the installed wheel."
    )


class DatabaseSettings(Group):
    """PostgreSQL: where it is and how much of it one process takes."""

    url: Annotated[
        DatabaseAddress | None, Env("DATABASE_URL", "postgresql://baatcheet:secret@db:5432/baatcheet")
    ] = Field(None, description="PostgreSQL 15 or newer; unset: the embedded one.")
    direct_url: Annotated[
        DatabaseAddress | None, Env("DATABASE_DIRECT_URL", "postgresql://baatcheet:secret@db:5432/baatcheet")
    ] = Field(None, description="The same database past PgBouncer, for migrations; unset: DATABASE_URL.")
    pool_max: Annotated[int | None, Env("BAATCHEET_POOL_MAX", "100")] = Field(
        None,
        ge=2,
        description="Connections in the pools of the whole deployment at most, divided among its processes on all "
        "machines; unset: 100, or what the server allows.",
    )
    connect_timeout: Annotated[Seconds, Env("BAATCHEET_DB_CONNECT_TIMEOUT", "10")] = Field(
        10.0, description="Seconds to wait for a new connection."
    )
    checkout_timeout: Annotated[Seconds, Env("BAATCHEET_DB_CHECKOUT_TIMEOUT", "10")] = Field(
        10.0,
        description="Seconds a request waits for the database, retries included, before it is answered 503.",
    )
    statement_timeout: Annotated[Seconds, Env("BAATCHEET_DB_STATEMENT_TIMEOUT", "30")] = Field(
        30.0, description="Seconds one statement may run."
    )
    slow_statement: Annotated[Seconds, Env("BAATCHEET_DB_SLOW_STATEMENT", "0.2")] = Field(
        0.5,
        description="Seconds from which on a statement is logged as slow, without its parameters; at the log level "
        "debug every statement is logged.",
    )


class CacheSettings(Group):
    """Redis or Valkey: may vanish at any time."""

    url: Annotated[CacheAddress | None, Env("REDIS_URL", "redis://cache:6379/0")] = Field(
        None, description="Redis or Valkey; unset: the embedded one."
    )
    timeout: Annotated[Seconds, Env("BAATCHEET_CACHE_TIMEOUT", "0.05")] = Field(
        0.05, description="Seconds that a request waits for the cache at most."
    )


class AuthSettings(Group):
    """Who may come in."""

    admin_token: Annotated[
        Token | None, Env("BAATCHEET_ADMIN_TOKEN", "bc_0123456789abcdef0123456789abcdef")
    ] = Field(
        None,
        min_length=16,
        max_length=512,
        description="The administrator's token; unset: one is made and shown once.",
    )
    requests_per_minute: Annotated[int, Env("BAATCHEET_REQUESTS_PER_MINUTE", "600")] = Field(
        60_000, ge=0, description="Requests that one token may make in a minute; 0: no limit."
    )
    tokens_per_minute: Annotated[int, Env("BAATCHEET_TOKENS_PER_MINUTE", "200000")] = Field(
        0, ge=0, description="Model tokens that one token may use in a minute; 0: no limit."
    )
    oidc_issuer: Annotated[
        Address | None, Env("BAATCHEET_OIDC_ISSUER", "https://id.example.com/realms/main")
    ] = Field(
        None,
        description="OpenID provider whose tokens let their holders in, exactly as it writes its name in them "
        "(`iss`).",
    )
    oidc_audiences: Annotated[Names, Env("BAATCHEET_OIDC_AUDIENCE", "https://baatcheet.example.com")] = Field(
        (), description="What the provider's tokens must be made for: one of these is in `aud`."
    )
    oidc_authorized_parties: Annotated[
        Names, Env("BAATCHEET_OIDC_AUTHORIZED_PARTIES", "https://app.example.com")
    ] = Field((), description="Whom the provider's tokens must be made for: `azp` is one of these.")
    oidc_role_claim: Annotated[str | None, Env("BAATCHEET_OIDC_ROLE_CLAIM", "realm_access.roles")] = Field(
        None, description="Claim that names its holder's roles; unset: roles are given here."
    )
    oidc_admin_roles: Annotated[Names, Env("BAATCHEET_OIDC_ADMIN_ROLES", "baatcheet-admin")] = Field(
        (), description="Roles of the provider's that make an administrator."
    )
    oidc_user_roles: Annotated[Names, Env("BAATCHEET_OIDC_USER_ROLES", "staff,students")] = Field(
        (), description="Roles of the provider's that let their holders in; unset: everybody may come in."
    )
    oidc_providers: Annotated[
        tuple[OidcProvider, ...],
        Json,
        Env(
            "BAATCHEET_OIDC_PROVIDERS",
            '[{"issuer": "https://clerk.example.com", "authorized_parties": ["https://app.example.com"]}]',
        ),
    ] = Field(
        (), description="Several OpenID providers, or one with all that can be said of it: a list in JSON."
    )


class ProviderSettings(Group):
    """Model providers: their keys, their order and how long they may take.

    Several keys of one provider are numbered (`GROQ_API_KEY_1`, `GROQ_API_KEY_2` …) or comma-separated
    (`GROQ_API_KEYS`).
    """

    order: Annotated[Names, Env("BAATCHEET_PROVIDER_ORDER", "groq,openrouter,ollama")] = Field(
        (), description="Providers to prefer, first to last; those not named follow in their built-in order."
    )
    default_model: Annotated[str | None, Env("BAATCHEET_DEFAULT_MODEL", "groq/llama-3.3-70b-versatile")] = (
        Field(
            None,
            description="Model of a chat that names none, or `auto`; unset: the first provider's default.",
        )
    )
    groq_key: Annotated[Key | None, Env("GROQ_API_KEY", "gsk_...")] = Field(None, description="Key for Groq.")
    openrouter_key: Annotated[Key | None, Env("OPENROUTER_API_KEY", "sk-or-...")] = Field(
        None, description="Key for OpenRouter."
    )
    deepseek_key: Annotated[Key | None, Env("DEEPSEEK_API_KEY", "sk-...")] = Field(
        None, description="Key for DeepSeek."
    )
    gemini_key: Annotated[Key | None, Env("GEMINI_API_KEY", "AIza...")] = Field(
        None, description="Key for Google Gemini."
    )
    huggingface_key: Annotated[Key | None, Env("HF_TOKEN", "hf_...")] = Field(
        None, description="Token for Hugging Face's router."
    )
    openai_key: Annotated[Key | None, Env("OPENAI_API_KEY", "sk-...")] = Field(
        None, description="Key for OpenAI."
    )
    anthropic_key: Annotated[Key | None, Env("ANTHROPIC_API_KEY", "sk-ant-...")] = Field(
        None, description="Key for Anthropic."
    )
    openai_base_url: Annotated[Address | None, Env("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")] = Field(
        None,
        description="Another OpenAI-compatible server in OpenAI's place (vLLM, llama.cpp, LM Studio …).",
    )
    ollama_url: Annotated[OllamaAddress, Env("OLLAMA_HOST", "http://127.0.0.1:11434")] = Field(
        "http://127.0.0.1:11434", description="A local Ollama, used when it answers; empty: never look."
    )
    custom: Annotated[
        tuple[CustomProvider, ...],
        Json,
        Env(
            "BAATCHEET_PROVIDERS",
            '[{"name": "lab", "base_url": "https://llm.example.com/v1", "api_key_env": "LAB_KEY"}]',
        ),
    ] = Field((), description="More OpenAI-compatible servers, as a JSON list (see how-to/providers.md).")
    connect_timeout: Annotated[Seconds, Env("BAATCHEET_PROVIDER_CONNECT_TIMEOUT", "5")] = Field(
        5.0, description="Seconds to reach a provider."
    )
    first_token_timeout: Annotated[Seconds, Env("BAATCHEET_PROVIDER_FIRST_TOKEN_TIMEOUT", "60")] = Field(
        60.0, description="Seconds until a provider's first token, before the next provider is tried."
    )
    idle_timeout: Annotated[Seconds, Env("BAATCHEET_PROVIDER_IDLE_TIMEOUT", "60")] = Field(
        60.0, description="Seconds between two tokens, before the turn is ended as failed."
    )


class ContextSettings(Group):
    """What goes into a model's window."""

    max_tokens: Annotated[int, Env("BAATCHEET_CONTEXT_MAX_TOKENS", "8000")] = Field(
        8000, ge=256, description="Tokens of context that a turn may carry."
    )
    max_messages: Annotated[int, Env("BAATCHEET_CONTEXT_MAX_MESSAGES", "50")] = Field(
        50, ge=2, le=1000, description="Recent messages that a turn may carry word for word."
    )
    reply_reserve: Annotated[int, Env("BAATCHEET_CONTEXT_REPLY_RESERVE", "1024")] = Field(
        1024,
        ge=16,
        description="Tokens of the model's window kept free for its reply, unless the request says more.",
    )
    truncation: Annotated[Literal["disabled", "auto"], Env("BAATCHEET_CONTEXT_TRUNCATION", "auto")] = Field(
        "disabled",
        description="What becomes of a request without a conversation that is too long for its model, unless it says "
        "`truncation` itself: `auto` leaves out its oldest messages, `disabled` refuses it.",
    )
    summary_model: Annotated[str | None, Env("BAATCHEET_SUMMARY_MODEL", "groq/llama-3.1-8b-instant")] = Field(
        None,
        description="Model that summarises what no longer fits; unset: sentences are picked without one.",
    )
    embedding_model: Annotated[
        str | None, Env("BAATCHEET_EMBEDDING_MODEL", "openai/text-embedding-3-small")
    ] = Field(
        None,
        description="Embedding model that helps to find older messages (needs the extension pgvector); unset: words "
        "alone are searched.",
    )


class TelemetrySettings(Group):
    """Logs, metrics, traces."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Env("BAATCHEET_LOG_LEVEL", "debug")
    ] = Field("info", description="How much is logged.")
    log_format: Annotated[Literal["auto", "json", "text"], Env("BAATCHEET_LOG_FORMAT", "json")] = Field(
        "auto", description="`auto` is text on a terminal and JSON elsewhere."
    )
    otlp_endpoint: Annotated[
        Address | None, Env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector:4318")
    ] = Field(
        None,
        description="OpenTelemetry collector (OTLP over HTTP); unset: no traces.",
    )
    metrics_public: Annotated[bool, Env("BAATCHEET_METRICS_PUBLIC", "true")] = Field(
        True, description="Serve /metrics without a token; false: an admin's token is asked for."
    )


class StorageSettings(Group):
    """Where uploaded and made files are kept: a folder, or a bucket of S3 or of what speaks like it."""

    files_dir: Annotated[Path | None, Env("BAATCHEET_FILES_DIR", "/var/lib/baatcheet/files")] = Field(
        None,
        description="Folder of the files; with a bucket, of those under way to and from it. Unset: `files` in "
        "BAATCHEET_DATA_DIR.",
    )
    s3_bucket: Annotated[str | None, Env("BAATCHEET_S3_BUCKET", "baatcheet-files")] = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{1,254}$",
        description="Bucket of the files (needs the extra `s3`; AWS's usual variables hold the credentials); unset: "
        "they are in the folder.",
    )
    s3_endpoint: Annotated[Address | None, Env("BAATCHEET_S3_ENDPOINT", "http://minio:9000")] = Field(
        None, description="Another server than AWS's that speaks S3."
    )
    s3_region: Annotated[str | None, Env("BAATCHEET_S3_REGION", "eu-central-1")] = Field(
        None,
        pattern=r"^[a-z0-9-]{1,64}$",
        description="The bucket's region; unset: as AWS's configuration says.",
    )
    s3_prefix: Annotated[str, Env("BAATCHEET_S3_PREFIX", "production/")] = Field(
        "",
        pattern=r"^[A-Za-z0-9._/-]{0,200}$",
        description="What every name in the bucket begins with, so that it can be shared.",
    )


class WebhookSettings(Group):
    """Telling other servers what has happened."""

    allowed_networks: Annotated[
        Destinations, Env("BAATCHEET_WEBHOOK_ALLOWED_NETWORKS", "10.1.0.0/16,127.0.0.1,hooks.internal")
    ] = Field(
        (),
        description="What webhooks may call besides the public internet, http:// and any port included: addresses, "
        "networks, host names, comma-separated. Unset: no address of a private network, nor this machine's.",
    )
    retries: Annotated[Durations, Env("BAATCHEET_WEBHOOK_RETRIES", "1m,10m,1h")] = Field(
        "5m,30m,2h,5h,10h,10h",
        description="Pauses before the further attempts of a delivery, after the first three (at 0, 2 and 6 s).",
    )
    timeout: Annotated[Seconds, Env("BAATCHEET_WEBHOOK_TIMEOUT", "10")] = Field(
        10.0,
        le=120,
        description="Seconds that one attempt may take, from connecting to the end of the answer.",
    )
    disable_after_days: Annotated[float, Env("BAATCHEET_WEBHOOK_DISABLE_AFTER_DAYS", "5")] = Field(
        5.0, gt=0, le=3650, description="Days of nothing but failure after which a webhook is disabled."
    )
    secret_overlap_hours: Annotated[float, Env("BAATCHEET_WEBHOOK_SECRET_OVERLAP_HOURS", "24")] = Field(
        24.0, ge=0, le=8760, description="Hours that a webhook's old secret still signs after its rotation."
    )
    keep_days: Annotated[float, Env("BAATCHEET_WEBHOOK_KEEP_DAYS", "30")] = Field(
        30.0, gt=0, le=3650, description="Days that deliveries are kept, to be looked at and replayed."
    )
    max_endpoints: Annotated[int, Env("BAATCHEET_WEBHOOK_MAX_ENDPOINTS", "50")] = Field(
        50, ge=0, le=10_000, description="Webhooks that one user may have."
    )


class JobSettings(Group):
    """Background work: who does it, and how much at once."""

    workers: Annotated[int, Env("BAATCHEET_WORKERS", "2")] = Field(
        1, ge=0, le=64, description="Worker processes that `baatcheet serve` runs; 0: they run elsewhere."
    )
    concurrency: Annotated[
        dict[str, Annotated[int, Field(gt=0, le=10_000)]],
        Json,
        Env("BAATCHEET_JOB_CONCURRENCY", '{"ocr": 4, "export": 1}'),
    ] = Field(
        {},
        description="How many jobs of a queue one worker runs at once, as a JSON object; for what it does not name: "
        "webhook 200, email and keys 4, ocr, audio, export, import and summaries 2, the others 1.",
    )
    lease_seconds: Annotated[float, Env("BAATCHEET_JOB_LEASE_SECONDS", "25")] = Field(
        25.0,
        ge=0.5,
        le=3600,
        description="A worker that was not heard of for this long is dead, and its jobs are given to others.",
    )
    kept_days: Annotated[float, Env("BAATCHEET_JOBS_KEPT_DAYS", "30")] = Field(
        30.0, gt=0, le=3650, description="Days that ended jobs are kept; dead ones three times as long."
    )


class ExportSettings(Group):
    """Files that people take away, and those that they bring."""

    kept_days: Annotated[float, Env("BAATCHEET_EXPORTS_KEPT_DAYS", "7")] = Field(
        7.0, gt=0, le=365, description="Days that the file of an export is kept."
    )
    link_minutes: Annotated[float, Env("BAATCHEET_EXPORT_LINK_MINUTES", "60")] = Field(
        60.0,
        gt=0,
        le=525_600,
        description="Minutes that a link opens an export to whoever holds it; never longer than the file is kept.",
    )
    max_import_bytes: Annotated[int, Env("BAATCHEET_MAX_IMPORT_BYTES", "1073741824")] = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Largest file that conversations are imported from; unpacked, an archive may have four times as "
        "much.",
    )


class NotificationSettings(Group):
    """Telling users what happened: in their list always, by email where a mail server is named."""

    smtp_url: Annotated[
        SmtpAddress | None, Env("BAATCHEET_SMTP_URL", "smtp://user:password@mail.example.com:587")
    ] = Field(
        None,
        description="Mail server: `smtp://` with STARTTLS, which only this machine's own may lack, or `smtps://`; "
        "unset: no emails.",
    )
    smtp_from: Annotated[Mailbox | None, Env("BAATCHEET_SMTP_FROM", "BaatCheet <noreply@example.com>")] = (
        Field(
            None,
            description="Sender of emails; unset: the mail server's user where that is an address, or `baatcheet` at "
            "the mail server.",
        )
    )
    public_url: Annotated[Address | None, Env("BAATCHEET_PUBLIC_URL", "https://chat.example.com")] = Field(
        None, description="Where people reach this server, for links in emails; unset: emails have none."
    )
    kept_days: Annotated[float, Env("BAATCHEET_NOTIFICATIONS_KEPT_DAYS", "90")] = Field(
        90.0, gt=0, le=3650, description="Days that notifications are kept, read or not."
    )


class RetentionSettings(Group):
    """How long conversations are kept."""

    deleted_days: Annotated[float, Env("BAATCHEET_DELETED_DAYS", "30")] = Field(
        30.0,
        ge=0,
        le=3650,
        description="Days that a deleted conversation can be restored; the night after, it is gone for good.",
    )
    unused_days: Annotated[float | None, Env("BAATCHEET_UNUSED_DAYS", "365")] = Field(
        None,
        ge=1,
        le=36500,
        description="Days after which a conversation that nobody has written in or changed is deleted, unless it is "
        "pinned; it can be restored like any other. Unset: never.",
    )


class EventSettings(Group):
    """The stream of what happens."""

    kept_days: Annotated[float, Env("BAATCHEET_EVENTS_KEPT_DAYS", "7")] = Field(
        3.0, gt=0, le=365, description="Days that events are kept: a follower may be away for so long."
    )
    streams_per_user: Annotated[int, Env("BAATCHEET_EVENT_STREAMS_PER_USER", "20")] = Field(
        100, ge=1, le=100_000, description="Streams of events that a user may have open in one process."
    )


class AudioSettings(Group):
    """Transcribing recordings."""

    engines: Annotated[Names, Env("BAATCHEET_AUDIO_ENGINES", "groq/whisper-large-v3-turbo,local")] = Field(
        (),
        description="Who transcribes, first to last: `provider/model`, or `local`, the extra `speech` (English only). "
        "Unset: every configured provider that is known to transcribe (Groq, OpenAI), then the extra where it is "
        "installed.",
    )
    max_bytes: Annotated[int, Env("BAATCHEET_AUDIO_MAX_BYTES", "209715200")] = Field(
        200 * 1024 * 1024, ge=1024, description="Largest recording; a larger one is answered 413."
    )
    max_seconds: Annotated[float, Env("BAATCHEET_AUDIO_MAX_SECONDS", "14400")] = Field(
        14_400.0, gt=0, le=86_400, description="Longest recording; the job of a longer one fails."
    )
    direct_seconds: Annotated[float, Env("BAATCHEET_AUDIO_DIRECT_SECONDS", "600")] = Field(
        600.0,
        gt=0,
        le=7200,
        description="Longest recording that POST /v1/audio/transcriptions takes, whose client waits for the answer.",
    )
    piece_seconds: Annotated[float, Env("BAATCHEET_AUDIO_PIECE_SECONDS", "300")] = Field(
        300.0,
        ge=10,
        le=700,
        description="Longest piece that is sent to an engine; longer recordings are cut in their pauses.",
    )


class ConsoleSettings(Group):
    """The web console."""

    idle_hours: Annotated[float, Env("BAATCHEET_CONSOLE_IDLE_HOURS", "12")] = Field(
        12.0,
        gt=0,
        le=720,
        description="Hours after which a session that nobody does anything with is over. A page that only keeps itself "
        "up to date does nothing.",
    )


class AttachmentSettings(Group):
    """Pictures and documents that users upload, and reading them."""

    max_image_bytes: Annotated[int, Env("BAATCHEET_MAX_IMAGE_BYTES", "10485760")] = Field(
        25 * 1024 * 1024, ge=1024, description="Largest picture; a larger one is answered 413."
    )
    max_document_bytes: Annotated[int, Env("BAATCHEET_MAX_DOCUMENT_BYTES", "104857600")] = Field(
        50 * 1024 * 1024, ge=1024, description="Largest document; a larger one is answered 413."
    )
    max_pixels: Annotated[int, Env("BAATCHEET_MAX_IMAGE_PIXELS", "50000000")] = Field(
        100_000_000, ge=10_000, description="Pixels of the largest picture, told before it is decoded."
    )
    max_pages: Annotated[int, Env("BAATCHEET_MAX_DOCUMENT_PAGES", "500")] = Field(
        2_000, ge=1, le=100_000, description="Pages of the longest document that is read."
    )
    max_ocr_pages: Annotated[int, Env("BAATCHEET_MAX_OCR_PAGES", "100")] = Field(
        500, ge=0, le=100_000, description="Pages of one document that are read from their pictures at most."
    )
    max_ocr_seconds: Annotated[float, Env("BAATCHEET_MAX_OCR_SECONDS", "600")] = Field(
        1_800.0,
        ge=0,
        description="Seconds that the pages of one document may be read from their pictures; the rest are left out.",
    )
    engines: Annotated[OcrEngines, Env("BAATCHEET_OCR_ENGINES", "tesseract,vision")] = Field(
        OCR_ENGINES,
        description="What reads pictures, in the order in which they are asked: `tesseract` and `rapidocr` on this "
        "machine, `ocr_space` and `vision` elsewhere. The next is asked where one is not available, fails or doubts.",
    )
    ocr_space_key: Annotated[Key | None, Env("OCR_SPACE_API_KEY", "K8...")] = Field(
        None, description="Key for OCR.space; unset: it is never asked."
    )
    ocr_space_url: Annotated[
        Address, Env("BAATCHEET_OCR_SPACE_URL", "https://apipro1.ocr.space/parse/image")
    ] = Field("https://api.ocr.space/parse/image", description="Where OCR.space answers.")
    ocr_space_max_bytes: Annotated[int, Env("BAATCHEET_OCR_SPACE_MAX_BYTES", "5000000")] = Field(
        1_000_000, ge=50_000, description="Largest picture that OCR.space takes by your plan there."
    )
    vision_model: Annotated[str | None, Env("BAATCHEET_OCR_VISION_MODEL", "gemini/gemini-2.5-flash")] = Field(
        None, description="Model of a provider that is asked to read pictures; unset: none is."
    )
    tessdata: Annotated[Path | None, Env("TESSDATA_PREFIX", "/usr/share/tesseract-ocr/5/tessdata")] = Field(
        None,
        description="Folder of Tesseract's language data; unset: where Debian and Fedora put it, or `tessdata` in "
        "BAATCHEET_DATA_DIR.",
    )
    wait_seconds: Annotated[float, Env("BAATCHEET_ATTACHMENT_WAIT_SECONDS", "10")] = Field(
        20.0,
        ge=0,
        le=300,
        description="How long a chat turn waits for an attachment that is still being read.",
    )


class SecretSettings(Group):
    """Where providers' keys are kept."""

    stores: Annotated[SecretStores, Env("BAATCHEET_SECRET_STORES", "vault,file")] = Field(
        SECRET_STORES[:2],
        description="Stores of providers' keys: `file` (encrypted), `aws`, `vault`, `environment` (for development). A "
        "provider's keys come from the first that has any.",
    )
    refresh_seconds: Annotated[float, Env("BAATCHEET_SECRETS_REFRESH_SECONDS", "60")] = Field(
        60.0, ge=1, le=86_400, description="Seconds between two looks at the stores, give or take a fifth."
    )
    timeout: Annotated[Seconds, Env("BAATCHEET_SECRETS_TIMEOUT", "5")] = Field(
        5.0, description="Seconds that a store may take to answer one request; it is asked three times."
    )
    file: Annotated[Path, Env("BAATCHEET_SECRETS_FILE", "/etc/baatcheet/.env.secrets")] = Field(
        Path(".env.secrets"),
        description="The encrypted file, in dotenvx's format; without it, the store is empty.",
    )
    file_private_key: Annotated[
        SecretStr | None, Env("DOTENV_PRIVATE_KEY_SECRETS", "64 hexadecimal digits")
    ] = Field(
        None, description="What opens the encrypted file; unset: it is read from BAATCHEET_SECRETS_KEY_FILE."
    )
    file_key_file: Annotated[Path | None, Env("BAATCHEET_SECRETS_KEY_FILE", "/run/secrets/dotenv-keys")] = (
        Field(
            None,
            description="File with the private key, as dotenvx writes it or alone; unset: `.env.keys` beside the "
            "encrypted file, then the operating system's keyring (extra `keyring`).",
        )
    )
    aws_region: Annotated[str, Env("BAATCHEET_AWS_REGION", "eu-central-1")] = Field(
        "us-east-1",
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Region of AWS Secrets Manager. Credentials come from the SDK's usual chain.",
    )
    aws_endpoint: Annotated[Address | None, Env("BAATCHEET_AWS_ENDPOINT", "http://127.0.0.1:4566")] = Field(
        None, description="Another server that speaks AWS Secrets Manager's protocol."
    )
    aws_prefix: Annotated[str, Env("BAATCHEET_AWS_SECRET_PREFIX", "production/baatcheet/")] = Field(
        "baatcheet/",
        pattern=r"^[A-Za-z0-9/_+=.@-]{0,200}$",
        description="What the secrets' names begin with: `baatcheet/groq-api-keys`.",
    )
    vault_address: Annotated[Address | None, Env("VAULT_ADDR", "https://vault.example.com:8200")] = Field(
        None, description="HashiCorp Vault or OpenBao."
    )
    vault_namespace: Annotated[str | None, Env("VAULT_NAMESPACE", "team-a")] = Field(
        None, pattern=r"^[A-Za-z0-9/_.-]{1,200}$", description="Vault's namespace; unset: the root's."
    )
    vault_auth: Annotated[
        Literal["token", "approle", "kubernetes"], Env("BAATCHEET_VAULT_AUTH", "approle")
    ] = Field("token", description="How BaatCheet proves to Vault who it is.")
    vault_token: Annotated[SecretStr | None, Env("VAULT_TOKEN", "hvs....")] = Field(
        None, description="Vault's token; renewed while it can be."
    )
    vault_role: Annotated[str | None, Env("BAATCHEET_VAULT_ROLE", "baatcheet")] = Field(
        None, pattern=r"^[A-Za-z0-9_.-]{1,200}$", description="Role for Kubernetes' way of signing in."
    )
    vault_role_id: Annotated[SecretStr | None, Env("VAULT_ROLE_ID", "db02de05-...")] = Field(
        None, description="AppRole's role."
    )
    vault_secret_id: Annotated[SecretStr | None, Env("VAULT_SECRET_ID", "6a174c20-...")] = Field(
        None, description="AppRole's secret."
    )
    vault_mount: Annotated[str | None, Env("BAATCHEET_VAULT_AUTH_MOUNT", "kubernetes")] = Field(
        None,
        pattern=r"^[A-Za-z0-9/_.-]{1,200}$",
        description="Where AppRole's or Kubernetes' way of signing in is mounted; unset: under its own name.",
    )
    vault_jwt_file: Annotated[
        Path, Env("BAATCHEET_VAULT_JWT_FILE", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    ] = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        description="The service account's token, for Kubernetes' way of signing in.",
    )
    vault_path: Annotated[str, Env("BAATCHEET_VAULT_PATH", "secret/data/baatcheet/api-keys")] = Field(
        "secret/data/baatcheet/api-keys",
        pattern=r"^[A-Za-z0-9_.-]+/data/[A-Za-z0-9/_.-]+$",
        description="The secret in Vault's KV version 2, its mount and `data` included.",
    )
    allow_insecure: Annotated[bool, Env("BAATCHEET_SECRETS_ALLOW_INSECURE", "true")] = Field(
        False, description="Allow http:// to a store that is not on this machine."
    )
    key_limits: Annotated[
        dict[str, dict[str, Annotated[int, Field(ge=0)]]],
        Json,
        Env("BAATCHEET_KEY_LIMITS", '{"groq": {"requests_per_day": 14400, "tokens_per_minute": 6000}}'),
    ] = Field(
        {},
        description="What one key of a provider may be used for, in place of what is known of it; 0: without limit.",
    )
    max_age_days: Annotated[float, Env("BAATCHEET_KEY_MAX_AGE_DAYS", "90")] = Field(
        90.0, gt=0, le=3650, description="Days after which a key is too old: administrators are told."
    )
    rotate: Annotated[Names, Env("BAATCHEET_KEY_ROTATION_PROVIDERS", "openrouter,openai")] = Field(
        (),
        description="Providers whose keys are replaced every month; unset: all for which new keys can be had, from the "
        "provider's own API or because they are staged.",
    )
    watch_seconds: Annotated[Seconds, Env("BAATCHEET_KEY_ROTATION_WATCH_SECONDS", "120")] = Field(
        120.0,
        description="Seconds after a rotation in which refused new keys bring the old ones back.",
    )
    openrouter_keys_url: Annotated[
        Address | None, Env("BAATCHEET_OPENROUTER_KEYS_URL", "https://openrouter.ai/api/v1")
    ] = Field(None, description="Another server that speaks OpenRouter's key API; unset: OpenRouter itself.")
    openai_admin_url: Annotated[
        Address | None, Env("BAATCHEET_OPENAI_ADMIN_URL", "https://api.openai.com/v1")
    ] = Field(None, description="Another server that speaks OpenAI's admin API; unset: OpenAI itself.")
    openai_project: Annotated[str | None, Env("OPENAI_PROJECT_ID", "proj_abc123")] = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="The project in which OpenAI's admin API makes new keys, as service accounts.",
    )


class Settings(Group):
    """All groups. Only entry points hold this."""

    provider_keys: dict[str, tuple[SecretStr, ...]] = {}  # of the environment, by provider

    server: ServerSettings = ServerSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    database: DatabaseSettings = DatabaseSettings()
    cache: CacheSettings = CacheSettings()
    auth: AuthSettings = AuthSettings()
    providers: ProviderSettings = ProviderSettings()
    context: ContextSettings = ContextSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    jobs: JobSettings = JobSettings()
    events: EventSettings = EventSettings()
    storage: StorageSettings = StorageSettings()
    audio: AudioSettings = AudioSettings()
    notifications: NotificationSettings = NotificationSettings()
    webhooks: WebhookSettings = WebhookSettings()
    exports: ExportSettings = ExportSettings()
    console: ConsoleSettings = ConsoleSettings()
    retention: RetentionSettings = RetentionSettings()
    attachments: AttachmentSettings = AttachmentSettings()
    secrets: SecretSettings = SecretSettings()


@dataclass(frozen=True)
class Setting:
    """One documented variable."""

    group: str
    field: str
    env: Env
    info: FieldInfo
    adapter: TypeAdapter[Any]


def settings_of(group: str, model: type[BaseModel]) -> Iterator[Setting]:
    for field, info in model.model_fields.items():
        env = next(extra for extra in info.metadata if isinstance(extra, Env))
        yield Setting(group, field, env, info, _adapter(model, field))


def _adapter(model: type[BaseModel], field: str) -> TypeAdapter[Any]:
    info = model.model_fields[field]
    fields: dict[str, Any] = {"value": (info.annotation, info)}
    return TypeAdapter(create_model("One", __config__=ConfigDict(hide_input_in_errors=True), **fields))


def all_settings() -> list[Setting]:
    """Every variable that BaatCheet reads, in the order of the reference page."""
    return [
        setting
        for group, info in Settings.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
        for setting in settings_of(group, info.annotation)
    ]


def load(environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
    """The settings in `environ` (default: the process's own) over those in the file `dotenv`.

    An empty value counts as unset. Raises SettingsError with every problem at once: the variable's name, what
    is wrong with its value, and an example. Values are never repeated in it: they may be secret.
    """
    declared = all_settings()
    in_file, problems = (
        read_file(dotenv, {one.env.name: one.env.example for one in declared}) if dotenv else ({}, [])
    )
    values = in_file | dict(os.environ if environ is None else environ)
    problems += [_unknown(name, declared) for name in sorted(values) if _is_unknown(name, declared)]
    groups: dict[str, dict[str, Any]] = {}
    for setting in declared:
        raw = values.get(setting.env.name)
        if raw is None or (not raw.strip() and setting.field != "ollama_url"):
            continue
        try:
            groups.setdefault(setting.group, {})[setting.field] = setting.adapter.validate_python(
                {"value": raw}
            ).value
        except ValidationError as error:
            what = "; ".join(
                _explain(dict(detail)) for detail in error.errors(include_url=False, include_input=False)
            )
            problems.append(f"{setting.env.name}: {what}. Example: {setting.env.name}={setting.env.example}")
    if problems:
        raise SettingsError("\n".join(problems))
    settings = Settings.model_validate(
        {group: Settings.model_fields[group].annotation(**fields) for group, fields in groups.items()}  # type: ignore[misc]
    )
    return _with_named_keys(settings.model_copy(update={"provider_keys": _provider_keys(values)}), values)


def _provider_keys(values: Mapping[str, str]) -> dict[str, tuple[SecretStr, ...]]:
    """Every provider's keys in `values`. Raises SettingsError."""
    found: dict[str, tuple[SecretStr, ...]] = {}
    for provider, keys in keys_in(values).items():
        try:
            found[provider] = tuple(usable_key(SecretStr(key)) for key in keys)
        except ValueError as error:
            name = variable_of(provider)
            raise SettingsError(f"{name} (or one with a number): {error}. Example: {name}=sk-...") from None
    return found


def _with_named_keys(settings: Settings, values: Mapping[str, str]) -> Settings:
    """Fill in the keys that custom providers name by variable. One that is not set may be in a secret store."""
    filled = []
    for provider in settings.providers.custom:
        if provider.api_key_env is None:
            filled.append(provider)
        elif value := values.get(provider.api_key_env, "").strip():
            try:
                key = usable_key(SecretStr(value))
            except ValueError as error:
                raise SettingsError(
                    f"{provider.api_key_env}: {error}. Example: {provider.api_key_env}=sk-..."
                ) from None
            filled.append(provider.model_copy(update={"api_key": key}))
        else:
            filled.append(provider)
    providers = settings.providers.model_copy(update={"custom": tuple(filled)})
    keys = settings.provider_keys | {one.name: (one.api_key,) for one in filled if one.api_key is not None}
    return settings.model_copy(update={"providers": providers, "provider_keys": keys})


def _is_unknown(name: str, declared: list[Setting]) -> bool:
    return name.startswith(PREFIX) and all(name != setting.env.name for setting in declared)


def _unknown(name: str, declared: list[Setting]) -> str:
    names = {setting.env.name: setting.env for setting in declared}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = (
        f"Did you mean {near[0]}? Example: {near[0]}={names[near[0]].example}"
        if near
        else "See docs/reference/settings.md"
    )
    return f"{name}: there is no such setting. {hint}"


def _explain(detail: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"][1:])
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def reference() -> str:
    """`docs/reference/settings.md`, written from the declarations above."""
    lines = [
        "# Settings",
        "",
        "Read once at start-up from the environment and from `.env` in the working folder (the environment wins; an",
        f"empty value counts as unset). A variable that begins with `{PREFIX}` and is not listed here stops start-up,",
        "and so does a value, or a line of `.env`, that can't be used.",
        "This page is written by `baatcheet settings` and checked against the code.",
    ]
    group = ""
    for setting in all_settings():
        if setting.group != group:
            group = setting.group
            model = Settings.model_fields[group].annotation
            assert model is not None
            lines += ["", f"## {group.capitalize()}", "", (model.__doc__ or "").strip(), ""]
            lines += ["| variable | default | what it does | example |", "|---|---|---|---|"]
        default = setting.info.default
        shown = "" if default in (None, ()) else f"`{default}`"
        example = setting.env.example.replace("|", "\\|")
        lines.append(f"| `{setting.env.name}` | {shown} | {setting.info.description} | `{example}` |")
    return "\n".join(lines) + "\n"
