"""`baatcheet budget`, as an operator types it."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from baatcheet.entrypoints.cli import app
from baatcheet.kit.ids import new_id
from baatcheet.platform.database import Database
from tests.budgets.holders import new_holder

Run = Callable[..., Result]


@pytest.fixture
def run(services: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)  # no .env of anybody's
    for name in os.environ:
        if name.startswith("BAATCHEET_"):
            monkeypatch.delenv(name)
    for name, value in services.items():
        monkeypatch.setenv(name, value)

    def command(*arguments: str) -> Result:
        # In a thread: a command has an event loop of its own.
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(CliRunner().invoke, app, ["budget", *arguments]).result(60)

    return command


def said(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


async def test_limits_are_set_one_by_one_shown_and_taken_away(run: Run, database: Database) -> None:
    user = str((await new_holder(database)).user_id)
    said(run("set", "--user", user, "--models", "groq/*, gpt-4.1-mini", "--usd-per-month", "2.50"))
    shown = said(run("set", "--user", user, "--requests-per-day", "1000"))
    assert shown.splitlines() == [
        "models  groq/*, gpt-4.1-mini",
        "day     1,000 requests, any tokens, any USD",
        "month   any requests, any tokens, 2.5 USD",
    ]
    assert "used: 0 requests" in said(run("show", "--user", user))
    shown = said(run("set", "--user", user, "--models", "none", "--usd-per-month", "none"))
    assert shown.splitlines() == [
        "models  all",
        "day     1,000 requests, any tokens, any USD",
        "month   any requests, any tokens, any USD",
    ]
    said(run("clear", "--user", user))
    assert "any requests" in said(run("show", "--user", user)).splitlines()[1]


async def test_a_token_has_limits_of_its_own(run: Run, database: Database) -> None:
    who = await new_holder(database)
    said(run("set", "--token", str(who.token_id), "--tokens-per-day", "0"))
    assert "0 tokens" in said(run("show", "--token", str(who.token_id)))
    assert "0 tokens" not in said(run("show", "--user", str(who.user_id))).partition("used")[0]


async def test_prices_are_set_listed_and_taken_away(run: Run) -> None:
    name = f"lab-{os.urandom(4).hex()}/*"
    assert "prompt 0.000001" in said(run("price", name, "--prompt", "0.000001", "--hour", "0.36"))
    (line,) = [one for one in said(run("prices")).splitlines() if one.startswith(name)]
    assert "hour of a recording 0.36" in line
    assert "set here" in line
    said(run("price", name, "--remove"))
    assert name not in said(run("prices"))
    assert "groq/llama-3.3-70b-versatile" in said(run("prices"))
    assert run("price", name, "--remove").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show"], "name one holder"),
        (["show", "--user", "a@b", "--token", "x"], "name one holder"),
        (["show", "--user", "nobody@example.invalid"], "There is no user"),
        (["clear", "--token", "x"], "not a token's id"),
        (["set", "--token", str(new_id()), "--tokens-per-day", "1"], "There is no token"),
        (["set", "--user", "a@b"], "name a limit"),
        (["set", "--user", "a@b", "--requests-per-day", "many"], "no whole number"),
        (["set", "--user", "a@b", "--requests-per-day", "9" * 30], "requests"),
        (["set", "--user", "a@b", "--usd-per-day", "1,5"], "no amount"),
        (["set", "--user", "a@b", "--usd-per-day", "0.000000001"], "usd"),
        (["set", "--user", "a@b", "--models", "a b"], "models"),
        (["price", "gpt-4.1", "--prompt", "1"], "provider/name"),
        (["price", "lab/x"], "either"),
        (["price", "lab/x", "--prompt", "1", "--remove"], "either"),
        (["price", "lab/x", "--prompt", "NaN"], "no price"),
        (["price", "lab/x", "--prompt", "-1"], "no price"),
        (["price", "lab/x", "--prompt", "0.0000001"], "no price"),
        (["price", "lab/x", "--prompt", "cheap"], "no price"),
    ],
)
async def test_what_can_not_be_done_is_said_plainly(run: Run, arguments: list[str], told: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert told in " ".join(done.output.replace("│", " ").split())
