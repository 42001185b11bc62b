"""`baatcheet token`: API tokens."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from baatcheet.auth.models import ApiToken
from baatcheet.auth.principal import DEFAULT_SCOPES, SCOPES
from baatcheet.auth.schemas import NewToken
from baatcheet.auth.service import Authenticator, Tokens
from baatcheet.entrypoints.cli.session import checked, find_user, operator, with_database
from baatcheet.kit.ids import parse_id
from baatcheet.kit.text import printable
from baatcheet.platform.database import Database
from baatcheet.platform.errors import Problem

app = typer.Typer(help="API tokens.", no_args_is_help=True)

Owner = Annotated[
    str | None,
    typer.Option("--user", help="Its owner's id or e-mail address; the first administrator's else."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")] = "command line",
    user: Owner = None,
    scopes: Annotated[
        str | None,
        typer.Option(help=f"Of {', '.join(SCOPES)}; comma-separated. All that the user may, else."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(help="Days until it expires; never, else.", min=1, max=36_500)
    ] = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    name = checked(NewToken, name=name).name
    wanted = None if scopes is None else [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if wanted is not None and (not wanted or set(wanted) - set(SCOPES)):
        raise typer.BadParameter(f"scopes are: {', '.join(SCOPES)}")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def work(database: Database) -> str:
        owner = await find_user(database, user)
        who = operator(owner)
        async with database.system() as session:
            _, token = await Tokens(database, Authenticator(database)).create(
                session,
                who,
                name=name,
                scopes=wanted if wanted is not None else DEFAULT_SCOPES[owner.role],
                expires_at=expires_at,
            )
        return token

    try:
        print(with_database(work))
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem


@app.command("list")
def show(user: Owner = None) -> None:
    """List a user's tokens, newest first."""

    async def work(database: Database) -> list[ApiToken]:
        tokens = Tokens(database, Authenticator(database))
        who = operator(await find_user(database, user))
        found: list[ApiToken] = []
        cursor: str | None = None
        while True:
            page = await tokens.list(who, user_id=None, limit=200, cursor=cursor)
            found += page.rows
            if (cursor := page.next_cursor) is None:
                return found

    for token in with_database(work):
        scopes = ",".join(token.scopes)
        print(f"{token.id}  {token.prefix}…  {_state(token):<28}  {scopes:<21}  {printable(token.name)}")


def _state(token: ApiToken) -> str:
    if token.revoked_at is not None:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        return f"expired {token.expires_at:%Y-%m-%d}"
    return f"used {token.last_used_at:%Y-%m-%d %H:%M} UTC" if token.last_used_at else "never used"


@app.command("revoke")
def revoke(token: Annotated[str, typer.Argument(help="Its id, as `baatcheet token list` shows it.")]) -> None:
    """Refuse a token from now on: within 5 seconds, everywhere."""
    token_id = parse_id(token)
    if token_id is None:
        raise typer.BadParameter("that is not a token's id: see `baatcheet token list`")

    async def work(database: Database) -> None:
        who = operator(await find_user(database, None))
        await Tokens(database, Authenticator(database)).revoke(who, token_id)

    try:
        with_database(work)
    except Problem as problem:
        raise typer.BadParameter(str(problem)) from problem
    print(f"Token {token_id} is revoked.")
