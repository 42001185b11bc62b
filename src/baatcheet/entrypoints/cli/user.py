"""`baatcheet user`: users."""

from typing import Annotated

import typer

from baatcheet.auth.models import User
from baatcheet.auth.schemas import NewUser
from baatcheet.auth.service import Authenticator, Users
from baatcheet.entrypoints.cli.session import checked, with_database
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Problem

app = typer.Typer(help="Users.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What they are called.")],
    email: Annotated[str | None, typer.Option(help="Their e-mail address.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Make them an administrator.")] = False,
) -> None:
    """Add a user and print their id. They come in with a token: `baatcheet token create --user ID`."""
    wanted = checked(NewUser, name=name, email=email, role="admin" if admin else "user")

    async def work(database: Database) -> User:
        users = Users(database, Authenticator(database))
        async with database.system() as session:
            return await users.create(session, name=wanted.name, email=wanted.email, role=wanted.role)

    try:
        print(with_database(work).id)
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem
