"""`baatcheet db indexes`: which indexes are used, which are not, which another one makes needless."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from baatcheet.entrypoints.cli import app
from baatcheet.platform.database import connect
from baatcheet.platform.indexes import IndexReport, report
from baatcheet.platform.migrate import upgrade
from tests.conftest import database_on


@pytest.fixture(scope="module")
def own(services: Any) -> Iterator[str]:
    """The address of a migrated database of this module's own."""
    with database_on(services["DATABASE_URL"]) as url:
        upgrade(url)
        yield url


async def reported(url: str, *statements: str) -> IndexReport:
    """What the report says after `statements`, none of which stays."""
    connection = await connect(url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        for statement in statements:
            await connection.execute(statement)
        found = await report(connection)
        await transaction.rollback()
        return found
    finally:
        await connection.close()


def test_no_index_of_the_schema_is_needless_or_broken(own: str) -> None:
    found = asyncio.run(reported(own))
    assert [(one.needless.name, one.by.name) for one in found.duplicates] == []
    assert found.invalid == []
    assert len(found.indexes) > 100


@pytest.mark.parametrize(
    ("definition", "by"),
    [
        ("(user_id)", "idx_turn_user"),
        ("(user_id, id)", None),  # ascending, then ascending: another order than theirs
        ("(user_id DESC, id)", "idx_turn_user"),  # the same from its other end
        ("(user_id, id DESC)", "idx_turn_user"),
        ("(user_id, id DESC NULLS LAST)", None),
        ("(user_id) WHERE status = 'failed'", None),
        ("(user_id) INCLUDE (status)", None),  # that is there so that the table need not be read
        ("(user_id) INCLUDE (id)", "idx_turn_user"),
        ("USING hash (user_id)", None),
        ("((user_id::text))", None),
    ],
)
def test_an_index_is_needless_when_another_one_begins_with_it(
    own: str, definition: str, by: str | None
) -> None:
    found = asyncio.run(reported(own, f"CREATE INDEX zz_ours ON turns {definition}"))
    assert {one.needless.name: one.by.name for one in found.duplicates} == ({"zz_ours": by} if by else {})


def test_a_longer_index_makes_a_shorter_one_needless(own: str) -> None:
    found = asyncio.run(reported(own, "CREATE INDEX zz_ours ON turns (user_id, id DESC, status)"))
    assert {one.needless.name: one.by.name for one in found.duplicates} == {"idx_turn_user": "zz_ours"}


def test_a_unique_index_is_never_needless_for_one_that_promises_less(own: str) -> None:
    found = asyncio.run(reported(own, "CREATE UNIQUE INDEX aa_ours ON turns (user_id, id DESC)"))
    assert {one.needless.name: one.by.name for one in found.duplicates} == {"idx_turn_user": "aa_ours"}


def test_of_two_that_are_the_same_only_one_is_needless(own: str) -> None:
    same = "ON turns (model)"
    found = asyncio.run(reported(own, f"CREATE INDEX zz_one {same}", f"CREATE INDEX zz_two {same}"))
    assert [one.needless.name for one in found.duplicates] == ["zz_two"]


def test_what_was_never_used_is_told_and_what_keeps_values_unique_is_not(own: str) -> None:
    found = asyncio.run(reported(own, "CREATE INDEX zz_ours ON turns (model)"))
    unused = {one.name for one in found.unused}
    assert "zz_ours" in unused
    assert not any(name.startswith(("pk_", "uq_")) for name in unused)
    assert {one.name: one.foreign_key for one in found.indexes}["idx_turn_user"] == "fk_turns_user_id"


def told(url: str, *arguments: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, ["db", "indexes", *arguments], env={"DATABASE_URL": url})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_names_a_broken_index_and_a_needless_one(own: str) -> None:
    async def make(*statements: str) -> None:
        connection = await connect(own)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(
        make(
            "CREATE INDEX zz_needless ON turns (user_id)",
            "CREATE INDEX zz_broken ON turns (model)",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'zz_broken'::regclass",
        )
    )
    try:
        said = told(own, "--all")
        listed, said = said[: said.index("\n\n")], said[said.index("\n\n") :]
        assert "zz_needless on turns" in said
        assert "does nothing that idx_turn_user does not" in said
        assert "zz_broken" in said.partition("Broken off")[2].partition("\n\n")[0]
        assert "pk_turns" not in said, "it keeps values unique"
        assert "pk_turns" in listed
    finally:
        asyncio.run(make("DROP INDEX zz_needless, zz_broken"))
