"""`baatcheet worker`: background work in a process of its own."""

from contextlib import suppress
from typing import Annotated

import typer
from pydantic import SecretStr

from baatcheet.entrypoints import worker as process
from baatcheet.entrypoints.cli.connection import database_url, ensure_schema
from baatcheet.platform import logging
from baatcheet.platform.database import DatabaseUnavailable
from baatcheet.platform.settings import load


def worker(
    queues: Annotated[
        str | None,
        typer.Option(
            help="Queues to serve, comma-separated (`ocr,audio`); all of them where it is left out."
        ),
    ] = None,
) -> None:
    """Run background jobs until SIGTERM, on any machine that reaches the database.

    `baatcheet serve` runs one beside its API processes, unless it is told not to (--no-worker).
    """
    settings = load()
    logging.configure(settings.telemetry)
    logging.register_secrets(settings)
    served = [name.strip() for name in queues.split(",") if name.strip()] if queues is not None else None
    with database_url(settings) as url:
        with suppress(DatabaseUnavailable):  # it is waited for
            ensure_schema(settings, url)
        database = settings.database.model_copy(update={"url": SecretStr(url)})
        process.work(settings.model_copy(update={"database": database}), served)
