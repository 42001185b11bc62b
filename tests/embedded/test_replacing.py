"""One database takes another's place: done wholly, whatever is killed between two renames."""

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baatcheet.platform.embedded import EmbeddedError
from baatcheet.platform.embedded.replacing import hold

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MOST_RENAMES = 8


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def make(data: Path, *, database: bool) -> list[tuple[Path, Path]]:
    """An old database with its files, and new files beside those; what is to be renamed of the files."""
    with hold(data):
        pass
    files, staged, kept = data / "files", data / "files" / ".next", data / "files" / ".before-then"
    shutil.rmtree(data / "postgres", ignore_errors=True)
    if database:
        write(data / "postgres" / "PG_VERSION", "old")
        write(files / "audio" / "a", "old")
        write(files / "exports" / "b", "old")
    write(staged / "audio" / "c", "new")
    away = [(files / "audio", kept / "audio"), (files / "exports", kept / "exports")] if database else []
    return [*away, (staged / "audio", files / "audio")]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def contents(data: Path) -> dict[str, str]:
    found = {
        str(path.relative_to(data)): path.read_text()
        for path in data.rglob("*")
        if path.is_file() and path.relative_to(data).parts[0] not in {"locks", "log"}
    }
    return dict(sorted(found.items()))


@pytest.mark.parametrize("database", [True, False], ids=["in the place of another", "where there was none"])
@pytest.mark.parametrize("killed_at", range(MOST_RENAMES))
def test_a_kill_at_any_rename_is_made_good_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int, database: bool
) -> None:
    data = tmp_path / "data"
    more = make(data, database=database)
    steps = 0
    rename, unlink = Path.rename, Path.unlink

    def count(path: Path) -> None:
        nonlocal steps
        if path.name == "replacing" or "locks" not in path.parts:
            if steps == killed_at:
                raise Killed
            steps += 1

    def counted_rename(self: Path, target: Path) -> Path:
        count(self)
        return rename(self, target)

    def counted_unlink(self: Path, missing_ok: bool = False) -> None:
        if self.name == "replacing":
            count(self)
        unlink(self, missing_ok)

    def put_in_place() -> None:
        with hold(data) as held, held.making() as new:
            write(new / "PG_VERSION", "new")
            monkeypatch.setattr(Path, "rename", counted_rename)
            monkeypatch.setattr(Path, "unlink", counted_unlink)
            try:
                held.put_in_place(NOW, more)
            finally:
                monkeypatch.undo()

    try:
        put_in_place()
    except Killed:
        assert steps == killed_at
    else:
        assert steps <= killed_at
    with hold(data):
        after = contents(data)
    new = {"files/audio/c": "new", "postgres/PG_VERSION": "new"}
    old = {
        "files/.before-then/audio/a": "old",
        "files/.before-then/exports/b": "old",
        "postgres.before-20260304T050607Z/PG_VERSION": "old",
    }
    assert after == dict(sorted((new | (old if database else {})).items()))


def test_a_kill_before_the_first_rename_is_noted_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    more = make(data, database=True)
    before = contents(data)

    def kill(self: Path, target: Path) -> Path:
        raise Killed

    with hold(data) as held, held.making() as new:
        write(new / "PG_VERSION", "new")
        monkeypatch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            held.put_in_place(NOW, more)
        monkeypatch.undo()
    with hold(data):
        after = contents(data)
    assert {name: text for name, text in after.items() if name != "replacing.new"} == before


def test_a_database_that_was_moved_away_is_not_worked_on_until_another_takes_its_place(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    more = make(data, database=True)
    with hold(data) as held:
        marker = held.mark_moved("postgresql://db.example.com/baatcheet", NOW)
    with (
        pytest.raises(
            EmbeddedError, match=rf"moved to postgresql://db.example.com/baatcheet.*remove {marker}"
        ),
        hold(data),
    ):
        pass
    with hold(data, moved=True) as held, held.making() as new:
        write(new / "PG_VERSION", "new")
        held.put_in_place(NOW, more)
    with hold(data):
        assert not marker.exists()
        assert (data / "postgres.moved.before-20260304T050607Z").exists()


def test_what_can_not_be_renamed_stays_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    more = make(data, database=True)
    before = contents(data)

    def mounted(self: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with hold(data) as held, held.making() as new:
        write(new / "PG_VERSION", "new")
        monkeypatch.setattr(Path, "rename", mounted)
        with pytest.raises(EmbeddedError, match=r"postgres can't be renamed to .*: Device or resource busy"):
            held.put_in_place(NOW, more)
        monkeypatch.undo()
    with hold(data):
        assert contents(data) == before


def test_what_is_noted_is_for_its_owner_alone(tmp_path: Path) -> None:
    with hold(tmp_path / "data") as held:
        marker = held.mark_moved("postgresql://db.example.com/baatcheet", NOW)
    assert marker.stat().st_mode & 0o777 == 0o600
    assert marker.stat().st_uid == os.geteuid()
