"""The audit entry of what an operator does on the command line."""

import getpass
import os
from collections.abc import Mapping
from typing import Any

from baatcheet.entrypoints.cli.session import with_database
from baatcheet.keys.audit import Actor, note
from baatcheet.keys.ring import tell_of_change
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.database import Database, DatabaseUnavailable, UnusableDatabaseUrl
from baatcheet.platform.embedded import EmbeddedError
from baatcheet.platform.migrate import MigrationError
from baatcheet.platform.settings import Settings
from baatcheet.platform.signed_links import deployment_secret


class NotRecorded(Exception):
    """There is no database that could keep the entry; `str(error)` says why."""


def operator_of_this_machine() -> Actor:
    """Who runs the command: their name on this machine, and where their SSH connection comes from."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user of a container has no name
        name = f"uid {os.getuid()}"
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return Actor(name, "cli", address=connection[0] if connection else None)


def record(
    settings: Settings,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
    key: tuple[str, SecretKey] | None = None,
    *,
    changed: bool = False,
) -> None:
    """Write an entry, and return when it is committed. Raises NotRecorded.

    `key`: the provider's key that it is about, in place of `subject`. `changed`: a store has changed, and processes
    that run are told to read it.
    """
    if settings.database.url is None and not any(settings.embedded.data_dir.glob("*/PG_VERSION")):
        raise NotRecorded(
            f"DATABASE_URL is not set, and {settings.embedded.data_dir} (BAATCHEET_DATA_DIR) holds no database"
        )

    async def work(database: Database) -> None:
        about = subject
        if key is not None:
            secret = await deployment_secret(database, "provider-keys")
            about = f"{key[0]}/{key[1].fingerprint(secret, key[0])}"
        async with database.system() as session:
            note(session, operator_of_this_machine(), action, about, detail)
        if changed:
            await tell_of_change(database)

    try:
        with_database(work)
    except (DatabaseUnavailable, UnusableDatabaseUrl, EmbeddedError, MigrationError) as error:
        raise NotRecorded(str(error).rstrip(".")) from None
