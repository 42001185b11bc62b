"""What the commands on users and tokens share: a database, and an operator's powers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import typer
from pydantic import BaseModel, SecretStr, ValidationError
from sqlalchemy import func, select

from baatcheet.auth.models import User
from baatcheet.auth.principal import SCOPES, Principal
from baatcheet.entrypoints.cli.connection import database_url, ensure_schema
from baatcheet.kit.ids import parse_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import load

Result = TypeVar("Result")
Body = TypeVar("Body", bound=BaseModel)

NOBODY = UUID(int=0)


def with_database(work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run `work` on the database that the settings name."""
    settings = load()

    async def run(url: str) -> Result:
        database = Database(
            settings.database.model_copy(update={"url": SecretStr(url)}), pool_size=1, name="baatcheet cli"
        )
        try:
            return await work(database)
        finally:
            await database.close()

    with database_url(settings) as url:
        ensure_schema(settings, url)
        return asyncio.run(run(url))


def checked(schema: type[Body], **fields: Any) -> Body:
    """What an operator typed, held to what the HTTP API asks of it. Raises typer.BadParameter."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(f"{first['loc'][0]}: {message}") from error


async def find_user(database: Database, wanted: str | None) -> User:
    """The user with this id or e-mail address; None: the first active administrator."""
    query = select(User).order_by(User.id).limit(1)
    if wanted is None:
        query = query.where(User.role == "admin", User.active)
    elif (user_id := parse_id(wanted)) is not None:
        query = query.where(User.id == user_id)
    else:
        query = query.where(func.lower(User.email) == wanted.lower())
    async with database.system() as session:
        user = (await session.scalars(query)).one_or_none()
    if user is None:
        raise typer.BadParameter(
            f"There is no user {wanted}."
            if wanted is not None
            else "There is no active administrator yet. The first `baatcheet serve` makes one, or do it here: "
            "baatcheet user create NAME --admin"
        )
    return user


def operator(user: User) -> Principal:
    """Whoever may run commands on this machine may do everything, here on behalf of `user`."""
    return Principal(user.id, NOBODY, user.role, frozenset(SCOPES), user.name)
