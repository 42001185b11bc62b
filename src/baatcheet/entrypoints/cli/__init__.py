"""The command line. Each group of commands is a module beside this one, and is registered here."""

import sys
from typing import Annotated

import typer

from baatcheet import __version__
from baatcheet.entrypoints.cli import (
    budget,
    db,
    doctor,
    keys,
    openapi,
    routes,
    secrets,
    serve,
    settings,
    token,
    user,
    worker,
)
from baatcheet.entrypoints.supervisor import ServeError
from baatcheet.platform.backup import BackupError
from baatcheet.platform.copying import CopyError
from baatcheet.platform.database import DatabaseUnavailable, UnusableDatabaseUrl
from baatcheet.platform.embedded import EmbeddedError
from baatcheet.platform.migrate import MigrationError
from baatcheet.platform.settings import SettingsError

app = typer.Typer(
    name="baatcheet",
    help="A self-hosted AI-chat backend that streams, remembers and survives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Register commands here: a single one with `app.command`, a group of them with `app.add_typer`.
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("doctor")(doctor.doctor)
app.command("settings")(settings.settings)
app.command("openapi")(openapi.openapi)
app.add_typer(budget.app, name="budget")
app.add_typer(db.app, name="db")
app.add_typer(routes.app, name="routes")
app.add_typer(secrets.app, name="secrets")
app.add_typer(keys.app, name="keys")
app.add_typer(token.app, name="token")
app.add_typer(user.app, name="user")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"baatcheet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> None:
    """Run a command. What a person can mend is said plainly: status 2 for settings, 1 for the rest."""
    try:
        app()
    except SettingsError as error:
        print(f"The settings can't be used:\n{error}", file=sys.stderr)
        sys.exit(2)
    except UnusableDatabaseUrl as error:
        print(f"The settings can't be used:\nDATABASE_URL: {error}", file=sys.stderr)
        sys.exit(2)
    except (ServeError, EmbeddedError, MigrationError, DatabaseUnavailable, BackupError, CopyError) as error:
        print(f"baatcheet: {error}", file=sys.stderr)
        sys.exit(1)
