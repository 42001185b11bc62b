"""`baatcheet doctor`: what is wrong with this installation, what it means, and what to do about it."""

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import asyncpg
import typer
from pydantic import SecretStr
from redis.asyncio import Redis

from baatcheet.entrypoints.cli.connection import schema_problem, schema_revision
from baatcheet.entrypoints.keyring import keys_of_environment
from baatcheet.keys.pools import pools_with
from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.building import build_stores
from baatcheet.keys.stores.model import StoreError
from baatcheet.kit.text import printable
from baatcheet.platform import logging
from baatcheet.platform.cache import CACHE_ERRORS
from baatcheet.platform.database import (
    TENANT_ROLE,
    DatabaseUnavailable,
    UnusableDatabaseUrl,
    connect,
    connect_arguments,
    parse_url,
)
from baatcheet.platform.embedded import EmbeddedError, attach
from baatcheet.platform.http import client_session
from baatcheet.platform.key_variables import KEY_VARIABLES
from baatcheet.platform.migrate import newest_revision
from baatcheet.platform.pool import BESIDE, LEASE, Plan, ServerLimits, divide, server_limits
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import DatabaseSettings, Settings, SettingsError, TelemetrySettings, load
from baatcheet.providers.catalogue import AUTO, Catalogue, UnknownModel, build_catalogue
from baatcheet.providers.model import ProviderError
from baatcheet.providers.pooled import PooledProvider
from baatcheet.providers.routing.router import Router

OLDEST_POSTGRES: Final = 15
PATIENCE: Final = 5.0  # seconds that any one part may take to answer

Level = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do unless all is well."""

    part: str
    level: Level
    what: str
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Check settings, files, database, cache and providers. Status 1 when something fails."""
    logging.configure(
        TelemetrySettings(log_level="error", log_format="auto", otlp_endpoint=None, metrics_public=True)
    )
    findings = examine()
    good = all(finding.level != "FAIL" for finding in findings)
    if as_json:
        print(json.dumps({"ok": good, "findings": [asdict(one) for one in findings]}, ensure_ascii=False))
    else:
        for finding in findings:
            # Some of it is a server's own words.
            print(f"{finding.level:<5} {finding.part}: {printable(finding.what)}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    if not good:
        raise typer.Exit(1)


def examine(dotenv: Path = Path(".env")) -> list[Finding]:
    """Everything that is to be said, in the order of what depends on what."""
    findings = list(_env_file(dotenv))
    try:
        settings = load(dotenv=dotenv)
    except SettingsError as error:
        remedy = "Correct it in the environment or in .env; docs/reference/settings.md lists every setting."
        return [*findings, *(Finding("settings", "FAIL", line, remedy) for line in str(error).splitlines())]
    logging.register_secrets(settings)
    findings.append(Finding("settings", "OK", "every setting can be used"))
    with ExitStack() as stack:
        findings += _data_folder(settings)
        settings, trouble = _with_embedded(settings, stack)
        findings += trouble
        findings += asyncio.run(_ask_around(settings))
    return findings


def _env_file(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        return  # refused with the settings
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        what = f"{path} holds secrets and others on this machine may read it (mode {mode & 0o777:o})"
        yield Finding("settings file", "WARN", what, f"chmod 600 {path}")
    else:
        yield Finding("settings file", "OK", f"{path} is readable by its owner only")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    if settings.database.url is not None and settings.cache.url is not None:
        return
    folder = settings.embedded.data_dir.absolute()
    if not folder.exists():
        above = next(parent for parent in folder.parents if parent.exists())
        if os.access(above, os.W_OK | os.X_OK):
            yield Finding("data folder", "OK", f"{folder} will be made by `baatcheet serve`")
        else:
            what = f"{folder} does not exist, and {above} can't be written to"
            yield Finding("data folder", "FAIL", what, "Choose another with --data or BAATCHEET_DATA_DIR.")
    elif not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        what = f"{folder} is not a folder that this user may write to"
        yield Finding("data folder", "FAIL", what, f"Run as its owner, or: chown -R $(id -u) {folder}")
    else:
        free = _free_bytes(folder)
        if free < 1024**3:
            what = f"{folder} has {free // 1024**2} MB left; PostgreSQL stops when there is no room"
            yield Finding("data folder", "WARN", what, "Make room, or move the folder to a larger disk.")
        else:
            yield Finding("data folder", "OK", f"{folder}, {free // 1024**3} GB free")


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _with_embedded(settings: Settings, stack: ExitStack) -> tuple[Settings, list[Finding]]:
    """The settings with the addresses of the embedded services filled in, where those have been made."""
    wants_database, wants_cache = settings.database.url is None, settings.cache.url is None
    if not (wants_database or wants_cache) or not settings.embedded.data_dir.exists():
        return settings, []
    # The embedded cache alone runs only while a server does. A folder without a database is left as it is.
    if not wants_database or not any(settings.embedded.data_dir.glob("*/PG_VERSION")):
        return settings, []
    try:
        addresses = stack.enter_context(attach(settings.embedded, valkey=wants_cache))
    except (EmbeddedError, OSError) as error:
        remedy = "See the message; `baatcheet serve` would fail in the same way."
        return settings, [Finding("embedded services", "FAIL", str(error), remedy)]
    database, cache = settings.database, settings.cache
    if addresses.database_url is not None:
        database = database.model_copy(update={"url": SecretStr(addresses.database_url)})
    if wants_cache and addresses.redis_url is not None:
        cache = cache.model_copy(update={"url": SecretStr(addresses.redis_url)})
    return settings.model_copy(update={"database": database, "cache": cache}), []


async def _ask_around(settings: Settings) -> list[Finding]:
    parts = (_database(settings), _cache(settings), _providers(settings))
    return [finding for findings in await asyncio.gather(*parts) for finding in findings]


# The database -----------------------------------------------------------------------------------------------


async def _database(settings: Settings) -> list[Finding]:
    if settings.database.url is None:
        return [Finding("database", "OK", "embedded; it is made by the first `baatcheet serve`")]
    url = settings.database.url.get_secret_value()
    started = time.monotonic()
    try:
        connection = await connect(url, timeout=PATIENCE)
    except UnusableDatabaseUrl as error:
        return [Finding("database", "FAIL", f"DATABASE_URL {error}", "Correct DATABASE_URL.")]
    except DatabaseUnavailable as error:
        cause = error.__cause__ or error
        remedy = "Check that PostgreSQL runs, and DATABASE_URL's host, port, name, user and password."
        return [Finding("database", "FAIL", f"can't be reached: {_brief(cause)}", remedy)]
    took = (time.monotonic() - started) * 1000
    try:
        async with asyncio.timeout(PATIENCE * 2):
            findings = [finding async for finding in _database_inside(connection, settings.database, took)]
            findings += await _pool(connection, settings)
    except (asyncpg.PostgresError, TimeoutError, OSError) as error:
        remedy = "Look into PostgreSQL's own log."
        findings = [Finding("database", "FAIL", f"did not answer as it should: {_brief(error)}", remedy)]
    finally:
        connection.terminate()
    return findings


async def _database_inside(
    connection: Any, settings: DatabaseSettings, took: float
) -> AsyncIterator[Finding]:
    version = connection.get_server_version()
    if version.major < OLDEST_POSTGRES:
        what = f"PostgreSQL {version.major} is too old"
        yield Finding("database", "FAIL", what, f"Use PostgreSQL {OLDEST_POSTGRES} or newer.")
    else:
        yield Finding(
            "database", "OK", f"PostgreSQL {version.major}.{version.minor}, reached in {took:.0f} ms"
        )
    yield await _schema(connection)
    yield await _tenant_role(connection)
    assert settings.url is not None
    if "statement_cache_size" in connect_arguments(parse_url(settings.url.get_secret_value())[1]):
        if settings.direct_url is None:
            what = "DATABASE_URL leads through PgBouncer, and notices (LISTEN) need a session of their own"
            yield Finding("pgbouncer", "WARN", what, "Set DATABASE_DIRECT_URL to PostgreSQL's own address.")
        else:
            what = "used for requests; migrations and notices go past it"
            yield Finding("pgbouncer", "OK", what)
        yield await _timeouts_of_role(connection)


async def _timeouts_of_role(connection: Any) -> Finding:
    """Behind a transaction pooler nobody but the role can say how long a statement may take."""
    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT current_user AS role, current_setting('statement_timeout') AS statement,"
            " current_setting('idle_in_transaction_session_timeout') AS idle"
        )
    missing = [
        f"ALTER ROLE {row['role']} SET {name} = '{usual}'"
        for name, told, usual in (
            ("statement_timeout", row["statement"], "30s"),
            ("idle_in_transaction_session_timeout", row["idle"], "60s"),
        )
        if told == "0"
    ]
    if missing:
        what = f"the role {row['role']} has no limits of its own, and PgBouncer passes on none of ours"
        return Finding(
            "timeouts", "WARN", what, f"{'; '.join(missing)}; then RECONNECT in PgBouncer's console."
        )
    return Finding("timeouts", "OK", f"statements {row['statement']}, idle in a transaction {row['idle']}")


async def _schema(connection: Any) -> Finding:
    revision = await schema_revision(connection)
    if problem := schema_problem(revision):
        remedy = "Run `baatcheet db upgrade` (`baatcheet serve` does it by itself)."
        return Finding("schema", "FAIL", problem, remedy)
    newest = revision == newest_revision()
    return Finding("schema", "OK", f"at {revision}, {'the newest' if newest else 'of a newer version'}")


async def _tenant_role(connection: Any) -> Finding:
    """Row-level security is only as good as the role under which a tenant's statements run."""
    row = await connection.fetchrow(
        "SELECT rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname = $1", TENANT_ROLE
    )
    if row is None:
        return Finding(
            "tenant role", "FAIL", f"there is no role {TENANT_ROLE}", "Run `baatcheet db upgrade`."
        )
    if row["free"]:
        what = f"{TENANT_ROLE} may pass row-level security: one user's query could see another's rows"
        remedy = f"As a superuser: ALTER ROLE {TENANT_ROLE} NOSUPERUSER NOBYPASSRLS"
        return Finding("tenant role", "FAIL", what, remedy)
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {TENANT_ROLE}")
    except asyncpg.InsufficientPrivilegeError:
        what = f"this user may not act as {TENANT_ROLE}: every request would fail"
        remedy = f"As a superuser: GRANT {TENANT_ROLE} TO {await connection.fetchval('SELECT current_user')}"
        return Finding("tenant role", "FAIL", what, remedy)
    return Finding("tenant role", "OK", f"{TENANT_ROLE} can be used, and row-level security holds it")


async def _pool(connection: Any, settings: Settings) -> list[Finding]:
    processes = settings.server.processes + settings.jobs.workers
    try:
        limits = await server_limits(settings.database)
        plan = divide(settings.database, limits, processes)
    except SettingsError as error:
        return [Finding("pool", "FAIL", str(error), "Change the setting, or the server's max_connections.")]
    except (DatabaseUnavailable, UnusableDatabaseUrl) as error:
        return [Finding("pool", "FAIL", f"can't be worked out: {error}", "See the database's own finding.")]
    findings = [_divided(limits, plan)]
    if limits is not None and (problem := limits.bouncer_problem()):
        remedy = (
            "Lower default_pool_size (pool_size, reserve_pool_size) in PgBouncer, or raise max_connections."
        )
        findings.append(Finding("pgbouncer pool", "WARN", problem, remedy))
    return [*findings, *await _pools_in_use(connection, limits, plan)]


def _divided(limits: ServerLimits | None, plan: Plan) -> Finding:
    """What this machine's processes would have, if they were all."""
    share = plan.share()
    sum_here = f"{plan.processes} x {share.most} = {plan.processes * share.most} connections, {share.warm} of each warm"
    if limits is None:
        what = (
            f"{sum_here}. PgBouncer decides how many the server sees; what it allows is not known, "
            "since this user is not among its stats_users"
        )
        return Finding("pool", "OK", what)
    has = f"The server has {limits.sum()}" if limits.bouncer is None else f"There is {limits.sum()}"
    if limits.bouncer is not None:
        has += f"; it opens {limits.bouncer.servers} to PostgreSQL at most"
    return Finding("pool", "OK", f"{sum_here}. {has}, and {BESIDE} of each process are beside its pool")


async def _pools_in_use(connection: Any, limits: ServerLimits | None, plan: Plan) -> list[Finding]:
    """What the processes that are running, on all machines, have told of their pools."""
    try:
        async with connection.transaction():
            rows = await connection.fetch(
                "SELECT kind, host, pid, pool_size, in_use, waiting FROM processes"
                " WHERE seen_at > now() - make_interval(secs => $1) ORDER BY host, kind, pid",
                LEASE,
            )
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return []  # the schema has a finding of its own
    if not rows:
        return []
    may, used = sum(row["pool_size"] for row in rows), sum(row["in_use"] for row in rows)
    waiting = sum(row["waiting"] for row in rows)
    machines = len({row["host"] for row in rows})
    each = "; ".join(
        f"{row['kind']} {row['host']}:{row['pid']} {row['in_use']}/{row['pool_size']}" for row in rows[:20]
    )
    what = (
        f"{len(rows)} running processes on {machines} machines may take {may}, have {used} in use, and "
        f"{waiting} callers wait ({each}{' …' if len(rows) > 20 else ''})"
    )
    if limits is not None and may > limits.usable - BESIDE * len(rows):
        remedy = "Lower BAATCHEET_POOL_MAX, run fewer processes, or raise max_connections."
        return [
            Finding("pools in use", "WARN", f"{what}. That is more than there are: {limits.sum()}", remedy)
        ]
    if waiting:
        remedy = "Look for slow statements in the log; if there are none, raise BAATCHEET_POOL_MAX."
        return [Finding("pools in use", "WARN", what, remedy)]
    return [Finding("pools in use", "OK", what)]


# The cache --------------------------------------------------------------------------------------------------


async def _cache(settings: Settings) -> list[Finding]:
    if settings.cache.url is None:
        return [Finding("cache", "OK", "embedded, where `baatcheet serve` runs; nothing depends on it")]
    try:
        client: Redis = Redis.from_url(
            settings.cache.url.get_secret_value(), socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE
        )
    except ValueError as error:
        return [Finding("cache", "FAIL", f"REDIS_URL: {error}", "Example: REDIS_URL=redis://cache:6379/0")]
    try:
        async with asyncio.timeout(PATIENCE):
            started = time.monotonic()
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
            took = (time.monotonic() - started) * 1000
            told = await client.info()
    except CACHE_ERRORS as error:
        remedy = (
            "Check that it runs, and REDIS_URL. Until then the database serves, and limits are per process."
        )
        return [Finding("cache", "WARN", f"can't be reached: {_brief(error)}", remedy)]
    finally:
        with contextlib.suppress(*CACHE_ERRORS):
            await client.aclose()
    name = "Valkey" if "valkey_version" in told else "Redis"
    version = told.get("valkey_version") or told.get("redis_version")
    findings = [Finding("cache", "OK", f"{name} {version}, answers in {took:.1f} ms")]
    policy, most = told.get("maxmemory_policy"), int(told.get("maxmemory") or 0)
    if most and policy == "noeviction":
        what = f"refuses to keep anything new once its {most // 1024**2} MB are full (noeviction)"
        remedy = "Set its maxmemory-policy to allkeys-lru: whatever is in it can be made again."
        findings.append(Finding("cache eviction", "WARN", what, remedy))
    elif not most and name != "Valkey":
        what = "has no maxmemory: it may grow until the machine has no memory left"
        findings.append(Finding("cache eviction", "WARN", what, "Set maxmemory, with allkeys-lru."))
    return findings


# Providers --------------------------------------------------------------------------------------------------


async def _providers(settings: Settings) -> list[Finding]:
    findings, keys = await _key_stores(settings)
    async with client_session() as session:
        try:
            catalogue = build_catalogue(settings.providers, session, pools_with(keys))
        except SettingsError as error:
            return [*findings, Finding("providers", "FAIL", str(error), "Correct the setting.")]
        findings += await _with_catalogue(catalogue, settings)
    return findings


async def _with_catalogue(catalogue: Catalogue, settings: Settings) -> list[Finding]:
    try:
        findings = await asyncio.gather(*(_provider(one) for one in catalogue.providers))
        findings += await _default_model(catalogue, settings.providers.default_model, findings)
    finally:
        await catalogue.close()
    answering = any(finding.level == "OK" and finding.part != _DEFAULT_MODEL for finding in findings)
    configured = any(not provider.profile.optional for provider in catalogue.providers)
    if not configured and not any(finding.what.endswith("models") for finding in findings):
        what = "none is configured: the built-in demo model answers"
        remedy = (
            "Set a key, for example `baatcheet secrets set groq`, or run Ollama. See docs/how-to/providers.md"
        )
        findings.append(Finding("providers", "WARN", what, remedy))
    elif not answering:
        what = "none of those that are configured answers: no chat can be served"
        findings.append(Finding("providers", "FAIL", what, "See each provider's own finding."))
    return list(findings)


async def _key_stores(settings: Settings) -> tuple[list[Finding], dict[str, tuple[SecretKey, ...]]]:
    """How the secret stores stand, and the keys that are served: of each provider, those of the first that has any."""
    findings: list[Finding] = []
    keys: dict[str, tuple[SecretKey, ...]] = {}
    providers = [*KEY_VARIABLES, *(custom.name for custom in settings.providers.custom)]
    try:
        stores = build_stores(settings.secrets, keys_of_environment(settings))
    except SettingsError as error:
        return [Finding("secret stores", "FAIL", str(error), "Correct the setting.")], {}
    for store in stores:
        part = f"secret store {store.name}"
        try:
            found = await store.fetch(providers)
        except StoreError as error:
            findings.append(Finding(part, "FAIL", str(error), "Until then, no process starts."))
            continue
        finally:
            await store.close()
        for one in found.values():
            for key in one.keys:
                register_secret(key.reveal(), fragments=True)
            keys.setdefault(one.provider, one.keys)
        count = sum(len(one.keys) for one in found.values())
        what = f"holds {count} keys of {len(found)} providers" if count else "holds no keys"
        if count and store.name == "environment":
            remedy = "Move them into the encrypted file: baatcheet secrets import .env"
            findings.append(
                Finding(part, "WARN", f"{what}, for whoever sees the environment to read", remedy)
            )
        else:
            findings.append(Finding(part, "OK", what))
    return findings, keys


_DEFAULT_MODEL: Final = "default model"


async def _default_model(
    catalogue: Catalogue, name: str | None, providers: Sequence[Finding]
) -> list[Finding]:
    if name in {None, AUTO}:
        return []
    try:
        targets = await Router(catalogue).resolve(name)
    except UnknownModel as error:
        # Who does not answer may yet have it.
        level: Level = "FAIL" if all(one.level == "OK" for one in providers) else "WARN"
        remedy = (
            "Set BAATCHEET_DEFAULT_MODEL to one that GET /v1/models lists, or unset it. A route of your own may be "
            "named, too: `baatcheet routes list`; this does not look at those."
        )
        return [Finding(_DEFAULT_MODEL, level, f"{error} A chat that names none fails.", remedy)]
    return [Finding(_DEFAULT_MODEL, "OK", f"{name}, served by {targets[0].model.provider}")]


async def _provider(provider: PooledProvider) -> Finding:
    part = f"provider {provider.name}"
    try:
        async with asyncio.timeout(PATIENCE * 2):
            count = await provider.check()
    except TimeoutError:
        error = ProviderError(provider.name, "timeout", f"no answer within {PATIENCE * 2:.0f} s")
    except ProviderError as raised:
        error = raised
    else:
        return Finding(part, "OK", f"answers, and lists {count} models")
    if provider.profile.optional and error.kind in {"unreachable", "timeout"}:
        return Finding(part, "OK", "not running, which is fine: it is used when it is there")
    if error.kind == "unauthorized":
        return Finding(
            part, "FAIL", f"refuses the key: {error.message}", "Set a key that is valid, or unset it."
        )
    return Finding(
        part, "WARN", error.message, "Check the network and the provider's address; others are tried."
    )


def _brief(error: BaseException) -> str:
    """An error on one line, without what a driver may quote of an address."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
