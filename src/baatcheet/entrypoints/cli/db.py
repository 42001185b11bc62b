"""`baatcheet db`: the database's schema."""

from typing import Annotated

import typer

from baatcheet.entrypoints.cli.connection import database_url
from baatcheet.platform.migrate import newest_revision, upgrade
from baatcheet.platform.settings import load

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("upgrade")
def upgrade_schema(
    revision: Annotated[str, typer.Option(help="The revision to go to; head is the newest.")] = "head",
) -> None:
    """Bring the database's schema up to date. `baatcheet serve` does this by itself."""
    with database_url(load(), direct=True) as url:
        upgrade(url, revision)
    print(f"The schema is at {newest_revision() if revision == 'head' else revision}.")
