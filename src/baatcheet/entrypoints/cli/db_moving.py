"""`baatcheet db backup`, `restore`, `check-backup`, `move`, `upgrade-cluster`: the data as a whole."""

from pathlib import Path
from typing import Annotated

import typer

from baatcheet.entrypoints.cli.connection import database_url
from baatcheet.platform import moving
from baatcheet.platform.backup import Manifest, check
from baatcheet.platform.copying import shown
from baatcheet.platform.settings import Settings, load

_Backup = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write: name.tar.gz")],
    files: Annotated[
        bool | None,
        typer.Option(
            "--files/--no-files",
            help="Include uploads and exports, or not; unsaid: include those in a folder, not those in a bucket.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Write everything into one file; the server may run or not."""
    settings = load()
    with database_url(settings, direct=True) as url:
        done = moving.back_up(settings, url, file, files=files, force=force, say=_say)
    _say(f"\n{file}: {_summary(done.manifest)}. SHA-256 {done.sha256}")
    if done.bucket is not None:
        _say(f"The files are not in it: they are in the bucket {done.bucket}. --files takes them along.")
    _say(
        "It holds everybody's messages: keep it as safe as the database. Keys in .env and other files are not in it."
    )


def check_backup(file: _Backup) -> None:
    """Read a backup to its end and compare it with its checksums; changes nothing."""
    _say(f"{file} is whole: {_summary(check(file))}.")


def restore(
    file: _Backup,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take the place of the embedded database that is there, and keep that."),
    ] = False,
) -> None:
    """Bring back a backup: as the embedded database, or into the empty one that DATABASE_URL names."""
    settings = load()
    url = _outside(settings)
    if url is None:
        done = moving.restore_embedded(settings, file, force=force, say=_say)
    else:
        done = moving.restore_elsewhere(settings, url, file, say=_say)
    _say(f"\nRestored: {_summary(done.manifest)}.")
    if done.manifest.files is None:
        _say("There were no files in the backup; those in the file store are as they were.")
    for what, kept in (("database", done.kept_database), ("files", done.kept_files)):
        if kept is not None:
            _say(f"The {what} of before: {kept}. Remove it when you need it no more.")


def move(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[postgresql://…]",
            help="The empty database to move to; left out: DATABASE_DIRECT_URL or DATABASE_URL, so that its "
            "password is in no list of processes.",
        ),
    ] = None,
) -> None:
    """Move the embedded database to a real PostgreSQL (15 or newer). Stop the server first."""
    settings = load()
    url = target or _outside(settings)
    if url is None:
        raise typer.BadParameter("name the database to move to: postgresql://user:password@host/name")
    content = moving.move(settings, url, say=_say)
    rows = sum(table.rows for table in content.tables)
    _say(
        f"\nMoved to {shown(url)}: {len(content.tables)} tables, {rows:,} rows, each table read back and compared."
    )
    if settings.database.url is None:
        _say("Now set DATABASE_URL to it, and start the server.")
    _say("Files stay where they are. The embedded database is kept, and nothing works on it any more.")


def upgrade_cluster(
    old: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the older PostgreSQL's programs (/usr/lib/postgresql/15/bin); unsaid: looked for."
        ),
    ] = None,
) -> None:
    """Bring the embedded database over to the newest PostgreSQL that is here. Stop the server first."""
    done = moving.upgrade_cluster(load(), old_programs=old, say=_say)
    if done.kept is None:
        _say(f"The embedded database is PostgreSQL {done.after}'s, the newest that is here. Nothing to do.")
        return
    _say(f"\nThe embedded database was PostgreSQL {done.before}'s and is {done.after}'s.")
    _say(f"The older one is kept: {done.kept}, with its postgresql.conf. Remove it when you need it no more.")


def _outside(settings: Settings) -> str | None:
    given = settings.database.direct_url or settings.database.url
    return None if given is None else given.get_secret_value()


def _summary(manifest: Manifest) -> str:
    rows = sum(table.rows for table in manifest.content.tables)
    files = "without files"
    if manifest.files is not None:
        files = f"{manifest.files.count:,} files of {manifest.files.bytes / 1e6:,.1f} MB"
    made = f"{manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{rows:,} rows and {files}, made {made} by BaatCheet {manifest.baatcheet}"


def _say(line: str) -> None:
    print(line, flush=True)
