"""The first administrator: made once, before anybody can ask for anything."""

import asyncio

import asyncpg

from baatcheet.auth.principal import SCOPES
from baatcheet.auth.secrets import new_token, shown_part, token_hash
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import connect
from baatcheet.platform.settings import AuthSettings

SETTING = "BAATCHEET_ADMIN_TOKEN"
_LOCK = 0x6261_6175  # an advisory lock of our own: "baau"


def ensure_admin(database_url: str, settings: AuthSettings) -> str | None:
    """See to it that an administrator can come in. Not for use inside an event loop.

    With `settings.admin_token` that token is an administrator's from now on, and one that was set so before
    is revoked. Without it, and without any active administrator, a user and a token are made: its text is the
    result, known to nobody else. Of two processes at once, one makes it. Raises DatabaseUnavailable.
    """
    return asyncio.run(_ensure(database_url, settings))


async def _ensure(database_url: str, settings: AuthSettings) -> str | None:
    connection = await connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            return await _with_lock(connection, settings)
    finally:
        await connection.close()


async def _with_lock(connection: asyncpg.Connection, settings: AuthSettings) -> str | None:
    admin = await connection.fetchval(
        "SELECT id FROM users WHERE role = 'admin' AND active ORDER BY id LIMIT 1"
    )
    if admin is not None and settings.admin_token is None:
        return None
    if admin is None:
        admin = new_id()
        await connection.execute(
            "INSERT INTO users (id, name, role) VALUES ($1, 'Administrator', 'admin')", admin
        )
    given = settings.admin_token
    token = given.get_secret_value() if given is not None else new_token()
    name = SETTING if given is not None else "first token"
    if given is not None:
        await connection.execute(
            "UPDATE api_tokens SET revoked_at = now() "
            "WHERE user_id = $1 AND name = $2 AND hash <> $3 AND revoked_at IS NULL",
            admin,
            name,
            token_hash(token),
        )
    await connection.execute(
        "INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes) VALUES ($1, $2, $3, $4, $5, $6) "
        "ON CONFLICT (hash) DO UPDATE SET user_id = excluded.user_id, name = excluded.name, "
        "scopes = excluded.scopes, expires_at = NULL, revoked_at = NULL",
        new_id(),
        admin,
        name,
        shown_part(token),
        token_hash(token),
        list(SCOPES),
    )
    return None if given is not None else token
