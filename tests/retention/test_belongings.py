"""Which tables hold what is a user's: every one, children before what they refer to."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from baatcheet.exports.account import ELSEWHERE, LEFT_OUT, TABLES_OF_ONES_OWN
from baatcheet.platform.database import Database
from baatcheet.retention.belongings import REMAINS, Reference, Shape, belongings, shape_of

# What is the deployment's. What is there of a user is taken out of the audit, and receipts name nobody who is there.
NOBODYS = {
    "alembic_version",
    "audit_entries",
    "deployment_secrets",
    "event_horizon",
    "forgotten_analytics",
    "forgotten_usage",
    "job_queues",
    "job_schedules",
    "job_workers",
    "key_changes",
    "key_rotations",
    "key_usage",
    "analytics_everybody",
    "key_watchers",
    "model_prices",
    "processes",
    "provider_keys",
    "routes",
    "spending_changes",
    "token_calibrations",
    "user_deletions",
}


async def test_every_table_is_a_users_or_said_to_be_nobodys(database: Database) -> None:
    async with database.system() as session:
        theirs = {one.table for one in belongings(await shape_of(session))}
        tables = set(
            await session.scalars(
                text(
                    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') "
                    "AND relnamespace = 'public'::regnamespace"
                )
            )
        )
    assert tables == theirs | NOBODYS | {"users"}
    assert not theirs & NOBODYS
    assert REMAINS.keys() <= theirs


async def test_every_table_of_a_user_is_in_the_archive_or_said_not_to_be(database: Database) -> None:
    async with database.system() as session:
        theirs = {one.table for one in belongings(await shape_of(session))} | {"users"}
    told = [{one.table for one in TABLES_OF_ONES_OWN}, set(ELSEWHERE), set(LEFT_OUT)]
    assert theirs == set.union(*told)
    assert sum(map(len, told)) == len(theirs)  # each is said once


async def test_what_is_taken_for_the_archive_is_there(database: Database) -> None:
    """A column that was renamed would otherwise be missing from then on, and nobody would know."""
    optional = {"created_at", "updated_at", "completed_at", "ended_at", "expires_at"}
    async with database.system() as session:
        for table in TABLES_OF_ONES_OWN:
            columns = set(
                await session.scalars(
                    text(
                        "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0"
                    ),
                    {"table": table.table},
                )
            )
            assert set(table.columns) - optional <= columns, table.table


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Tables that refer to earlier ones, each with an owner or below one that has."""
    count = draw(st.integers(1, 8))
    names = [f"t{at}" for at in draw(st.permutations(range(count)))]
    owned, found, references = set(), set(), []
    for at, name in enumerate(names):
        parents = draw(st.lists(st.sampled_from(names[:at]), unique=True, max_size=3)) if at else []
        references += [Reference(name, f"{one}_id", one, "id", draw(st.booleans())) for one in parents]
        if not parents or draw(st.booleans()):
            owned.add(name)
            if draw(st.booleans()):
                found.add(name)
            references.append(Reference(name, "user_id", "users", "id", name in found))
    return Shape(frozenset(owned), frozenset(found), tuple(references))


@given(shapes())
@settings(max_examples=200)
def test_children_come_first_and_every_table_is_reached(shape: Shape) -> None:
    order = belongings(shape)
    tables = [one.table for one in order]
    assert sorted(tables) == sorted({one.table for one in shape.references})
    for one in shape.references:
        if one.parent != "users":
            assert tables.index(one.table) < tables.index(one.parent)
    for found in order:
        above = found.table
        for reference in found.way:
            assert reference.table == above
            above = reference.parent
        assert above in shape.owned
        if found.table in shape.found:
            assert found.way == ()
