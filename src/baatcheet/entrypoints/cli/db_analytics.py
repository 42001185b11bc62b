"""`baatcheet db rebuild-analytics`: counting anew what was used."""

from typing import Annotated

import typer

from baatcheet.analytics.rollup import RollUp
from baatcheet.entrypoints.cli.session import find_user, with_database
from baatcheet.platform.database import Database

User = Annotated[
    str | None, typer.Option("--user", help="A user's id or e-mail address; left out: everybody.")
]


def rebuild_analytics(user: User = None) -> None:
    """Count what was used anew, from the turns, jobs and files. Nobody waits for it, and it may be stopped.

    What is left when it is stopped, a worker does, or the next call.
    """

    async def work(database: Database) -> int:
        rolling = RollUp(database)
        await rolling.want_rebuilt((await find_user(database, user)).id if user is not None else None)
        done = await rolling.catch_up()
        if user is None:
            await rolling.add_up()
        return done

    print(f"Counted anew: {with_database(work)} users.")
