"""Users and tokens straight in the database, and a process of requests."""

import asyncio
import sys
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text

from baatcheet.auth.principal import DEFAULT_SCOPES, Principal
from baatcheet.budgets.admission import Admission, Budgets
from baatcheet.budgets.errors import BudgetExhausted
from baatcheet.budgets.limits import Amounts, Limits
from baatcheet.budgets.service import Budgeting
from baatcheet.keys.audit import SYSTEM
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from baatcheet.platform.settings import DatabaseSettings
from baatcheet.providers.model import Usage

MODEL = "openai/gpt-4.1"


async def new_holder(database: Database, user_id: UUID | None = None) -> Principal:
    """A new user's new token, or a further one of `user_id`'s."""
    token = new_id()
    async with database.system() as session:
        if user_id is None:
            user_id = new_id()
            await session.execute(
                text("INSERT INTO users (id, name) VALUES (:id, 'holder')"), {"id": user_id}
            )
        await session.execute(
            text(
                "INSERT INTO api_tokens (id, user_id, name, prefix, hash, scopes) "
                "VALUES (:id, :user, 'token', 'bc_', :hash, '{chat}')"
            ),
            {"id": token, "user": user_id, "hash": token.bytes},
        )
    return Principal(user_id, token, "user", DEFAULT_SCOPES["user"], "holder")


async def limit(
    database: Database,
    who: Principal,
    *,
    day: Amounts = Amounts(),  # noqa: B008 - it does not change
    month: Amounts = Amounts(),  # noqa: B008 - it does not change
    models: tuple[str, ...] | None = None,
    token: bool = False,
) -> None:
    """Limit the user, or the token alone."""
    budgeting, limits = Budgeting(database), Limits(models, day, month)
    if token:
        await budgeting.limit_token(SYSTEM, who.token_id, limits)
    else:
        await budgeting.limit_user(SYSTEM, who.user_id, limits)


def used(prompt: int = 0, completion: int = 0) -> Usage:
    return Usage(prompt, completion, prompt + completion)


async def ask(budgets: Budgets, who: Principal, estimate: Usage | None = None) -> Admission | None:
    """None: a budget is used up."""
    try:
        return await budgets.admit(who, [MODEL], lambda: estimate or used(1))
    except BudgetExhausted:
        return None


async def _hammer(url: str, who: Principal, requests: int) -> int:
    """Ask so often at once, when a line comes in, and charge what was let in; how often it was.

    Five askers stand in line each by itself, as that many processes would.
    """
    database = Database(DatabaseSettings(url=SecretStr(url)), pool_size=5, name="hammer")
    askers = [Budgets(database) for _ in range(5)]
    try:
        for one in askers:
            await one.refresh()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        asked = await asyncio.gather(*(ask(askers[at % 5], who) for at in range(requests)))
        admitted = [one for one in asked if one is not None]
        for let_in in admitted:
            let_in.charge(MODEL, used(3, 4))
        return len(admitted)
    finally:
        for one in askers:
            await one.close(patience=10)
        await database.close()


if __name__ == "__main__":
    holder = Principal(UUID(sys.argv[2]), UUID(sys.argv[3]), "user", frozenset(), "holder")
    sys.stdout.write(str(asyncio.run(_hammer(sys.argv[1], holder, int(sys.argv[4])))))
