"""`baatcheet db`: the database, its schema and its data as a whole."""

from typing import Annotated

import typer

from baatcheet.entrypoints.cli import db_analytics, db_indexes, db_moving
from baatcheet.entrypoints.cli.connection import database_url
from baatcheet.platform.migrate import newest_revision, upgrade
from baatcheet.platform.settings import load

app = typer.Typer(help="The database: its schema, backups, moving.", no_args_is_help=True)


app.command("rebuild-analytics")(db_analytics.rebuild_analytics)
app.command("indexes")(db_indexes.indexes)
app.command("backup")(db_moving.backup)
app.command("check-backup")(db_moving.check_backup)
app.command("restore")(db_moving.restore)
app.command("move")(db_moving.move)
app.command("upgrade-cluster")(db_moving.upgrade_cluster)


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
