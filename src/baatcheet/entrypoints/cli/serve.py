"""`baatcheet serve`."""

from pathlib import Path
from typing import Annotated

import typer

from baatcheet.entrypoints.supervisor import Supervisor
from baatcheet.platform import logging
from baatcheet.platform.settings import load


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (BAATCHEET_HOST).")] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; 0 takes a free one (BAATCHEET_PORT).", min=0, max=65_535),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the embedded services' data (BAATCHEET_DATA_DIR).")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="API processes that share the port (BAATCHEET_PROCESSES).", min=1, max=256),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker",
            help="Run background jobs too; if not, `baatcheet worker` does it elsewhere (BAATCHEET_WORKERS).",
        ),
    ] = True,
) -> None:
    """Run the server; where DATABASE_URL or REDIS_URL is not set, with a database and a cache of its own."""
    settings = load()
    given = {"host": host, "port": port, "processes": processes}
    server = settings.server.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    embedded = settings.embedded if data is None else settings.embedded.model_copy(update={"data_dir": data})
    jobs = settings.jobs if worker else settings.jobs.model_copy(update={"workers": 0})
    settings = settings.model_copy(update={"server": server, "embedded": embedded, "jobs": jobs})
    logging.configure(settings.telemetry)
    logging.register_secrets(settings)
    Supervisor(settings).run()
