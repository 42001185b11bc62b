"""`baatcheet worker`: background work in a process of its own."""

import asyncio
from contextlib import suppress

from pydantic import SecretStr

from baatcheet.entrypoints import worker as process
from baatcheet.entrypoints.cli.connection import database_url, ensure_schema
from baatcheet.platform import logging
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.settings import load


def worker() -> None:
    """Run background work until SIGTERM. Today: end the turns of dead processes, forget what is out of date.

    Every API process does the same, so one machine needs no worker.
    """
    settings = load()
    logging.configure(settings.telemetry)
    with database_url(settings) as url:
        with suppress(DatabaseUnavailable):  # it is waited for
            ensure_schema(settings, url)
        database = settings.database.model_copy(update={"url": SecretStr(url)})
        asyncio.run(process.run(settings.model_copy(update={"database": database})))
