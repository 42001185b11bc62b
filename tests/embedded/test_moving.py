"""Backing up, restoring, moving and upgrading, between real servers of both versions: the wheel's and Debian's 15."""

import asyncio
import gzip
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from baatcheet.entrypoints.cli import app, main
from baatcheet.platform import moving
from baatcheet.platform.backup import BackupError, check
from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.copying import (
    SEEDED,
    Content,
    CopyError,
    TableSum,
    TargetInUse,
    filling,
    reading,
    same_content,
)
from baatcheet.platform.embedded import EmbeddedError, EmbeddedServices
from baatcheet.platform.migrate import newest_revision, upgrade
from baatcheet.platform.settings import Settings, load

DEBIAN = Path("/usr/lib/postgresql/15/bin")
needs_debian = pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's PostgreSQL 15 is not installed")
PREVIOUS_REVISION = "0015"

# Every letter that COPY's text has to escape, every script, NULL beside the empty text, deep JSON, and enough of it
# to come in several pieces. Through the triggers it fills the outbox as well, whose places are an identity's.
SEED = r"""
INSERT INTO users (id, name, role)
    SELECT gen_random_uuid(), 'user ' || n, 'user' FROM generate_series(1, 3) n;
INSERT INTO projects (id, user_id, name, description)
    SELECT gen_random_uuid(), id, E'tab\there', E'line\nline\r\\N \\. "quoted"' FROM users;
INSERT INTO conversations (id, user_id, project_id, title)
    SELECT gen_random_uuid(), p.user_id, p.id, 'بات چیت ' || n || E' 🙂 \u200c'
    FROM projects p, generate_series(1, 20) n;
INSERT INTO messages (id, conversation_id, user_id, role, content, parts, token_count)
    SELECT gen_random_uuid(), c.id, c.user_id, CASE n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        CASE n WHEN 1 THEN '' WHEN 2 THEN E'\\N' WHEN 3 THEN E'\\.' ELSE repeat(E'سلام\t\n\\x hello ', n * 20) END,
        CASE WHEN n > 8 THEN '[{"type": "text", "text": "\u0001 \\ ☂", "n": [1.10, null, {}]}]'::jsonb END, n
    FROM conversations c, generate_series(1, 12) n;
UPDATE conversations c SET head_id = (SELECT id FROM messages m WHERE m.conversation_id = c.id LIMIT 1);
"""


def settings_of(folder: Path, **more: str) -> Settings:
    return load({"BAATCHEET_DATA_DIR": str(folder), **more}, dotenv=None)


def sql(url: str, *statements: str) -> Any:
    """Run SQL in one connection; the last statement's first value."""

    async def inside() -> Any:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    with asyncio.Runner() as runner:
        return runner.run(inside())


class Server:
    """The embedded services of a folder, while the test wants them."""

    def __init__(self, settings: Settings) -> None:
        self._services = EmbeddedServices(settings.embedded, postgres=True, valkey=False, durable=False)

    def __enter__(self) -> str:
        url = self._services.start().database_url
        assert url is not None
        return url

    def __exit__(self, *_: object) -> None:
        self._services.stop()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a database full of everything and some files; nobody writes into it."""
    folder = tmp_path_factory.mktemp("wheel")
    with Server(settings_of(folder)) as url:
        upgrade(url)
        sql(url, SEED, "SELECT 1")
    for key, content in {
        "exports/one/a.json": b"{}",
        "audio/two/b": os.urandom(300_000),
        "audio/c": b"",
    }.items():
        path = folder / "files" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "files" / ".scratch" / "left").mkdir(parents=True)
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a stopped data folder, owners and all."""

    def copy(folder: Path) -> Path:
        target = tmp_path / f"copy{secrets.token_hex(2)}"
        subprocess.run(["/bin/cp", "-a", str(folder), str(target)], check=True)
        return target

    return copy


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL 15 that is somebody's own; its administrator's address."""
    folder = tmp_path_factory.mktemp("debian")
    with Server(settings_of(folder, BAATCHEET_POSTGRES_BIN=str(DEBIAN))) as url:
        sql(
            url,
            "CREATE ROLE baatcheet_tenant NOLOGIN",
            "CREATE ROLE owner LOGIN",
            "GRANT baatcheet_tenant TO owner",
        )
        yield url


@pytest.fixture
def empty(debian: str) -> Iterator[str]:
    """An empty database there, of an ordinary user."""
    name = f"test_{secrets.token_hex(4)}"
    sql(debian, f"CREATE DATABASE {name} OWNER owner ENCODING 'UTF8' TEMPLATE template0")
    yield f"postgresql://owner@/{name}?{debian.partition('?')[2]}"
    sql(debian, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def migrated(debian: str) -> str:
    """A database there that has the schema, as a new one gets it, and nothing in it."""
    sql(debian, "CREATE DATABASE migrated OWNER owner ENCODING 'UTF8' TEMPLATE template0")
    address = f"postgresql://owner@/migrated?{debian.partition('?')[2]}"
    upgrade(address)
    return address


@pytest.fixture
def without_rows(debian: str, migrated: str) -> Iterator[str]:
    """A copy of `migrated` for one test."""
    name = f"test_{secrets.token_hex(4)}"
    sql(debian, f"CREATE DATABASE {name} OWNER owner TEMPLATE migrated")
    yield migrated.replace("/migrated", f"/{name}")
    sql(debian, f"DROP DATABASE {name} WITH (FORCE)")


def content_of(url: str) -> Content:
    async def read() -> Content:
        async with reading(url) as source:
            return await source.content()

    with asyncio.Runner() as runner:
        return runner.run(read())


def hear(_line: str) -> None: ...


def objects(url: str) -> list[str]:
    """Everything that makes up the schema, as the server describes it."""
    found: list[str] = sql(
        url,
        """SELECT array_agg(what ORDER BY what) FROM (
            SELECT pg_get_indexdef(indexrelid) AS what FROM pg_index JOIN pg_class c ON c.oid = indrelid
                WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) || convalidated::text
                FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
            UNION ALL SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT tablename || ' ' || policyname || ' ' || qual FROM pg_policies
        ) AS all_of_it""",
    )
    return found


@needs_debian
def test_everything_moves_to_an_older_postgres_and_an_ordinary_user(
    wheel: Path, copy_of: Any, empty: str, migrated: str
) -> None:
    folder = copy_of(wheel)
    settings = settings_of(folder)
    heard: list[str] = []
    content = moving.move(settings, empty, say=heard.append, durable=False)
    assert "messages: 720 rows" in heard
    assert sql(empty, "SHOW server_version_num").startswith("15")
    assert sql(empty, "SELECT count(*) FROM messages") == 720
    assert sum(table.rows for table in content.tables) > 1500
    assert objects(empty) == objects(migrated)
    # The numbers go on where they were, and the triggers work.
    last = sql(empty, "SELECT max(place) FROM outbox")
    assert sql(empty, "UPDATE conversations SET title = 'new'", "SELECT max(place) FROM outbox") == last + 60
    assert sql(empty, "DELETE FROM users", "SELECT count(*) FROM messages") == 0
    # Nobody goes on with the old one, and it is as it was.
    with pytest.raises(EmbeddedError, match="was moved to postgresql://owner"), Server(settings):
        pass
    with pytest.raises(EmbeddedError, match="was moved to"):
        moving.move(settings, empty, say=hear, durable=False)
    (folder / "postgres.moved").unlink()
    with Server(settings) as url, Server(settings_of(wheel)) as original:
        assert same_content(original, url)


@needs_debian
def test_a_database_with_data_in_it_is_not_moved_into(wheel: Path, copy_of: Any, without_rows: str) -> None:
    somebody = "INSERT INTO users (id, name, role) VALUES (gen_random_uuid(), 'somebody', 'admin')"
    sql(without_rows, somebody, "SELECT 1")
    settings = settings_of(copy_of(wheel))
    with pytest.raises(TargetInUse, match=r"holds data already \(in users\)"):
        moving.move(settings, without_rows, say=hear, durable=False)
    assert sql(without_rows, "SELECT name FROM users") == "somebody"
    with Server(settings) as url:
        assert sql(url, "SELECT count(*) FROM users") == 3


@needs_debian
def test_what_the_migrations_put_in_themselves_is_all_that_a_new_database_has(migrated: str) -> None:
    tables = sql(migrated, "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'public'")
    filled = {table for table in tables if sql(migrated, f"SELECT EXISTS (SELECT FROM {table})")}
    assert filled == SEEDED | {"alembic_version"}, "name in SEEDED what a migration puts rows into"


KILLED = """
import os, signal, sys
from pathlib import Path
from baatcheet.platform import moving
from baatcheet.platform.embedded.replacing import Held
from baatcheet.platform.settings import load

folder, target, when = sys.argv[1:]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if when == "committed":
    Held.mark_moved = kill
moving.move(load({"BAATCHEET_DATA_DIR": folder}, dotenv=None), target, durable=False,
    say=lambda line: line.startswith(when) and kill())
"""


@needs_debian
def test_a_move_that_was_killed_is_done_when_it_is_asked_for_again(
    wheel: Path, copy_of: Any, without_rows: str
) -> None:
    folder = copy_of(wheel)
    for when in ("messages", "committed"):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), without_rows, when], timeout=60, check=False
        )
        assert killed.returncode == -signal.SIGKILL
        assert sql(without_rows, "SELECT count(*) FROM messages") == (720 if when == "committed" else 0)
    heard: list[str] = []
    content = moving.move(settings_of(folder), without_rows, say=heard.append, durable=False)
    assert heard == ["Everything was there already."]
    assert sql(without_rows, "SELECT count(*) FROM messages") == 720
    assert {table.name: table.rows for table in content.tables}["messages"] == 720


def test_nothing_is_moved_while_a_server_runs(wheel: Path, copy_of: Any) -> None:
    settings = settings_of(copy_of(wheel))
    with Server(settings):
        with pytest.raises(EmbeddedError, match=r"pid \d+\).*Stop it first"):
            moving.move(settings, "postgresql://owner@db.invalid/name", say=hear)
        with pytest.raises(EmbeddedError, match=r"pid \d+\).*Stop it first"):
            moving.upgrade_cluster(settings, old_programs=None, say=hear)
        with pytest.raises(EmbeddedError, match=r"pid \d+\).*Stop it first"):
            moving.restore_embedded(settings, Path("backup"), force=True, say=hear)


def test_a_target_that_can_not_be_reached_is_named_without_its_password(wheel: Path, copy_of: Any) -> None:
    settings = settings_of(copy_of(wheel))
    with pytest.raises(CopyError, match=r"postgresql://me:\*\*\*@127.0.0.1:9/name can't be used") as caught:
        moving.move(settings, "postgresql://me:hidden@127.0.0.1:9/name", say=hear, durable=False)
    assert "hidden" not in str(caught.value)
    assert not (settings.embedded.data_dir / "postgres.moved").exists()


@needs_debian
def test_a_row_that_did_not_arrive_is_noticed_and_nothing_is_kept(without_rows: str) -> None:
    columns = ["id", "name", "role"]

    async def rows() -> Any:
        yield f"{'0' * 32}\tone\tuser\n".encode()

    async def fill() -> None:
        async with filling(without_rows) as target:
            every = target.tables["users"]
            missing = [name for name in every if name not in columns]
            with pytest.raises(CopyError, match=f"users differs .*{min(missing)}"):
                await target.write("users", columns, rows())
            await target.check(TableSum("users", every, 1, 10, "0" * 64))

    with pytest.raises(CopyError, match=r"1 rows .* became 0"), asyncio.Runner() as runner:
        runner.run(fill())
    assert sql(without_rows, "SELECT count(*) FROM users") == 0
    assert sql(without_rows, "SELECT count(*) FROM pg_constraint WHERE contype = 'f'") > 10


@needs_debian
def test_data_of_an_older_postgres_is_brought_over_to_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Server(settings_of(folder, BAATCHEET_POSTGRES_BIN=str(DEBIAN))) as url:
        upgrade(url)
        sql(url, SEED, "SELECT 1")
        before = content_of(url)
    settings = settings_of(folder)
    advice = r"made by PostgreSQL 15, and .* has 18.*baatcheet db upgrade-cluster"
    with pytest.raises(EmbeddedError, match=advice), Server(settings):
        pass
    done = moving.upgrade_cluster(settings, old_programs=None, say=hear, durable=False)
    assert (done.before, done.after) == (15, 18)
    assert done.kept is not None
    assert (done.kept / "PG_VERSION").read_text() == "15\n"
    with Server(settings) as url:
        assert sql(url, "SHOW server_version_num").startswith("18")
        assert content_of(url) == before
    assert moving.upgrade_cluster(settings, old_programs=None, say=hear).kept is None


def test_without_the_older_programs_an_upgrade_says_where_they_are_to_be_had(
    wheel: Path, copy_of: Any
) -> None:
    folder = copy_of(wheel)
    (folder / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 12.*postgresql-12.*--old .*db restore FILE"):
        moving.upgrade_cluster(settings_of(folder), old_programs=None, say=hear)
    with pytest.raises(EmbeddedError, match="there is no database in"):
        moving.upgrade_cluster(settings_of(folder / "elsewhere"), old_programs=None, say=hear)


@pytest.fixture(scope="module")
def backup(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of `wheel`, made while others write there and take it back."""
    path = tmp_path_factory.mktemp("backup") / "baatcheet.tar.gz"
    settings = settings_of(wheel)
    with Server(settings) as url:
        moving.back_up(settings, url, path, files=None, force=False, say=hear)
    return path


@needs_debian
def test_a_backup_restores_everything_into_an_empty_database_and_file_store(
    wheel: Path, backup: Path, without_rows: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "data")
    done = moving.restore_elsewhere(settings, without_rows, backup, say=hear)
    assert (done.kept_database, done.kept_files) == (None, None)
    with Server(settings_of(wheel)) as source:
        assert same_content(source, without_rows)
    assert files_in(tmp_path / "data" / "files") == files_in(wheel / "files")
    with pytest.raises(TargetInUse, match="holds data already"):
        moving.restore_elsewhere(settings, without_rows, backup, say=hear)


def files_in(folder: Path) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        found = FolderBlobs(folder).keys()
        return {one.key: (folder / one.key).read_bytes() async for one in found}

    with asyncio.Runner() as runner:
        return runner.run(read())


def test_a_database_that_is_there_is_replaced_by_force_only_and_kept(
    wheel: Path, copy_of: Any, backup: Path
) -> None:
    folder = copy_of(wheel)
    settings = settings_of(folder)
    with Server(settings) as url:
        sql(url, "UPDATE users SET name = 'of today'", "SELECT 1")
    (folder / "files" / "audio" / "today").write_bytes(b"today")
    with pytest.raises(BackupError, match=r"--force"):
        moving.restore_embedded(settings, backup, force=False, say=hear, durable=False)
    done = moving.restore_embedded(settings, backup, force=True, say=hear, durable=False)
    with Server(settings) as url:
        assert sql(url, "SELECT count(*) FROM users WHERE name = 'of today'") == 0
    assert files_in(folder / "files") == files_in(wheel / "files")
    assert {path.name[:8] for path in (folder / "files").glob(".*")} == {".scratch", ".before-"}
    # What was there is whole, and goes back by putting it back.
    assert done.kept_files is not None
    assert done.kept_database is not None
    assert (done.kept_files / "audio" / "today").read_bytes() == b"today"
    (folder / "postgres").rename(folder / "restored")
    done.kept_database.rename(folder / "postgres")
    with Server(settings) as url:
        assert sql(url, "SELECT count(*) FROM users WHERE name = 'of today'") == 3


@needs_debian
def test_a_backup_of_an_older_schema_and_postgres_is_restored_on_a_new_machine_and_migrated(
    tmp_path: Path, empty: str
) -> None:
    settings, path = settings_of(tmp_path / "data"), tmp_path / "backup"
    upgrade(empty, PREVIOUS_REVISION)
    sql(empty, SEED, "SELECT 1")
    made = moving.back_up(settings, empty, path, files=False, force=False, say=hear)
    assert made.manifest.content.revision == PREVIOUS_REVISION
    assert made.manifest.files is None
    done = moving.restore_embedded(settings, path, force=False, say=hear, durable=False)
    assert (done.kept_database, done.kept_files) == (None, None)
    with Server(settings) as url:
        assert sql(url, "SELECT version_num FROM alembic_version") == newest_revision()
        assert sql(url, "SELECT count(*) FROM messages") == 720


def test_a_backup_is_of_one_moment_though_others_write(wheel: Path, copy_of: Any, tmp_path: Path) -> None:
    settings, path = settings_of(copy_of(wheel)), tmp_path / "backup"
    write = """WITH made AS (INSERT INTO conversations (id, user_id, title)
            SELECT gen_random_uuid(), id, 'pair' FROM users LIMIT 1 RETURNING id, user_id)
        INSERT INTO messages (id, conversation_id, user_id, role, content, token_count)
            SELECT gen_random_uuid(), id, user_id, 'user', 'pair', 1 FROM made"""
    ended = threading.Event()

    async def keep_writing(url: str) -> None:
        connection = await asyncpg.connect(url)
        while not ended.is_set():
            await connection.execute(write)
        await connection.close()

    with Server(settings) as url:
        writer = threading.Thread(target=lambda: asyncio.run(keep_writing(url)))
        writer.start()
        try:
            done = moving.back_up(settings, url, path, files=False, force=False, say=hear)
        finally:
            ended.set()
            writer.join(30)
        assert sql(url, "SELECT count(*) FROM conversations") > 61
    rows = {table.name: table.rows for table in done.manifest.content.tables}
    assert rows["messages"] - 720 == rows["conversations"] - 60
    text = gzip.decompress(path.read_bytes())
    assert text.count(b"\tpair\t") == 2 * (rows["messages"] - 720)


def test_a_backup_is_its_owners_alone_and_replaces_no_file_unasked(
    wheel: Path, backup: Path, tmp_path: Path
) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    (tmp_path / "backup").write_text("precious")
    settings = settings_of(wheel)
    with pytest.raises(BackupError, match="--force"):
        moving.back_up(
            settings, "postgresql://nowhere.invalid/x", tmp_path / "backup", files=None, force=False, say=hear
        )
    with pytest.raises(CopyError, match="can't be used"):
        moving.back_up(
            settings, "postgresql://127.0.0.1:9/x", tmp_path / "backup", files=None, force=True, say=hear
        )
    assert (tmp_path / "backup").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "backup"]
    with pytest.raises(BackupError, match="can't be written"):
        moving.back_up(
            settings, "postgresql://127.0.0.1:9/x", tmp_path / "no" / "b", files=None, force=False, say=hear
        )


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_backup_that_was_changed_anywhere_is_refused(
    backup: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = backup.read_bytes()
    # Behind gzip's header, whose time and name nothing depends on.
    place = data.draw(st.integers(10, len(whole) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "grow"]))
    if kind == "cut":
        changed = whole[:place]
    elif kind == "flip":
        changed = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    else:
        changed = whole[:place] + data.draw(st.binary(min_size=1, max_size=20)) + whole[place:]
    (tmp_path / "changed").write_bytes(changed)
    with pytest.raises(BackupError):
        check(tmp_path / "changed")


def test_what_was_packed_anew_with_other_rows_is_refused(backup: Path, tmp_path: Path) -> None:
    text = gzip.decompress(backup.read_bytes())
    (tmp_path / "changed").write_bytes(gzip.compress(text.replace(b"user 2", b"user 9", 1)))
    with pytest.raises(BackupError, match="users are not as they were written"):
        check(tmp_path / "changed")
    (tmp_path / "newer").write_bytes(gzip.compress(text.replace(b'"format": 1,', b'"format": 2,')))
    with pytest.raises(BackupError, match="newer BaatCheet"):
        check(tmp_path / "newer")
    assert check(backup).content.revision == newest_revision()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", gzip.compress(b""), gzip.compress(b"hello" * 1000)],
    ids=["empty", "text", "nothing packed", "text packed"],  # what is packed has the time of day in it
)
def test_a_file_that_is_no_backup_is_refused_before_anything_is_touched(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BackupError, match="backup"):
        moving.restore_embedded(settings_of(tmp_path / "data"), tmp_path / "file", force=False, say=hear)
    assert not (tmp_path / "data" / "postgres").exists()


def test_the_commands_say_what_they_did_and_what_is_wrong(
    wheel: Path,
    copy_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("BAATCHEET_", "DATABASE_", "REDIS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BAATCHEET_DATA_DIR", str(copy_of(wheel)))
    done = CliRunner().invoke(app, ["db", "backup", "b.tar.gz"])
    assert done.exit_code == 0, done.output
    assert "messages: 720 rows" in done.output
    assert "3 files of 0.3 MB" in done.output
    done = CliRunner().invoke(app, ["db", "check-backup", "b.tar.gz"])
    assert done.output.startswith("b.tar.gz is whole: ")
    done = CliRunner().invoke(app, ["db", "move"])
    assert done.exit_code == 2
    assert "name the database to move to" in done.output
    done = CliRunner().invoke(app, ["db", "upgrade-cluster"])
    assert "Nothing to do" in done.output
    monkeypatch.setattr(sys, "argv", ["baatcheet", "db", "restore", "b.tar.gz"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "baatcheet: there is a database in" in capsys.readouterr().err
