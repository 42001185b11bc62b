"""Where the embedded services keep their things, and the user that may touch them.

    DATA/locks/      what is held by the one process that works on the folder, and by each service
    DATA/log/        what the services say
    DATA/postgres/   PostgreSQL's data folder
    DATA/valkey/     Valkey's working folder (it stores nothing)
    DATA/run/        their sockets, if the path is short enough

What appears beside `postgres` while it is replaced is told of in `baatcheet.platform.embedded.replacing`.
`postgres`, `valkey` and `run` belong to the user that the services run as; the others stay ours, so that as root we
never write where that user could have laid a link.
"""

import contextlib
import hashlib
import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from baatcheet.platform.embedded.errors import EmbeddedError
from baatcheet.platform.embedded.process import User

# A socket's path may have 107 bytes (unix(7)), and PostgreSQL puts a lock file beside its own.
_LONGEST_SOCKET_PATH = 100
_LONGEST_SOCKET_NAME = "/.s.PGSQL.5432.lock"


@dataclass(frozen=True)
class Folders:
    """The folders of one data folder; all but `postgres` exist."""

    data: Path
    postgres: Path
    valkey: Path
    log: Path
    locks: Path
    sockets: Path
    owner: tuple[int, int] | None
    """The (uid, gid) that services run as; None: our own, which is not root."""

    def user_for(self, *programs: Path) -> User | None:
        """The user to run `programs` as; it keeps the right to pass root's folders only where it needs it."""
        if self.owner is None:
            return None
        uid, gid = self.owner
        places = (*programs, self.postgres, self.valkey, self.sockets)
        return User(uid, gid, keep_access=any(blocked(place, uid, gid) for place in places))

    def give(self, path: Path) -> None:
        """Make `path` the services' own."""
        if self.owner is not None:
            os.chown(path, *self.owner)

    def tidy(self) -> None:
        """Leave nothing outside the data folder."""
        if not self.sockets.is_relative_to(self.data):
            # A socket that a killed service left keeps its folder; the next start uses both again.
            with contextlib.suppress(OSError):
                self.sockets.rmdir()


def make_folders(data_dir: Path) -> Folders:
    """Make what is missing of the folders under `data_dir`. Raises EmbeddedError."""
    data = data_dir.expanduser().absolute()
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        data = data.parent.resolve() / data.name
        if not data.exists():
            data.mkdir()
            data.chmod(0o711)  # the services pass through, nobody lists
        else:
            data = data.resolve()
        owner = _service_owner(data)
        for name in ("log", "locks"):
            _private(data / name, None)
        for name in ("valkey", "run"):
            _private(data / name, owner)
        return Folders(
            data=data,
            postgres=data / "postgres",
            valkey=data / "valkey",
            log=data / "log",
            locks=data / "locks",
            sockets=_socket_folder(data, owner),
            owner=owner,
        )
    except OSError as error:
        raise EmbeddedError(
            f"the data folder {data} can't be used: {error}. Give a folder that can be written: "
            "--data FOLDER (BAATCHEET_DATA_DIR)."
        ) from error


def _service_owner(data: Path) -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    # PostgreSQL refuses to run as root, and serves nobody's data but its own user's.
    for folder in (data / "postgres", data):
        if folder.exists() and (uid := folder.stat().st_uid) != 0 and (known := _account(uid)) is not None:
            return known
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no user 'nobody' to give it to. Run BaatCheet as "
            "an ordinary user, or make one own the data folder."
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def _account(uid: int) -> tuple[int, int] | None:
    try:
        return uid, pwd.getpwuid(uid).pw_gid
    except KeyError:  # initdb needs an account with a name
        return None


def _private(folder: Path, owner: tuple[int, int] | None) -> None:
    if folder.is_symlink():
        raise EmbeddedError(f"{folder} is a link, and has to be a folder.")
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None and folder.stat().st_uid != owner[0]:
        os.chown(folder, *owner, follow_symlinks=False)
    folder.chmod(0o700)


def _socket_folder(data: Path, owner: tuple[int, int] | None) -> Path:
    if len(os.fsencode(f"{data / 'run'}{_LONGEST_SOCKET_NAME}")) <= _LONGEST_SOCKET_PATH:
        return data / "run"
    uid = os.geteuid() if owner is None else owner[0]
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    base = os.environ.get("XDG_RUNTIME_DIR") if owner is None else None
    if not base or not os.access(base, os.W_OK) or len(os.fsencode(base)) > 40:
        base = tempfile.gettempdir()
    if len(os.fsencode(base)) > 40:
        base = "/tmp"  # noqa: S108 - its ownership is verified below
    folder = Path(base) / f"baatcheet-{uid}-{name}"
    try:
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, *owner)
    except FileExistsError:
        found = folder.lstat()
        # Anyone may make a folder in /tmp: one that is not ours alone could listen in.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
            raise EmbeddedError(
                f"{folder} exists and is not this user's private folder. Remove it, or choose a data folder "
                f"whose path is shorter than {_LONGEST_SOCKET_PATH - len(_LONGEST_SOCKET_NAME) - 4} bytes: "
                "--data FOLDER."
            ) from None
    return folder


def blocked(path: Path, uid: int, gid: int) -> Path | None:
    """The first folder on the way to `path` (or `path`) that the user can't use; None: all are open."""
    for place in (*reversed(path.parents), path):
        if not place.exists():
            return None
        found = place.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        # The last one is used, the others are only passed through.
        needed = (0o5 if place == path else 0o1) << shift
        if found.st_mode & needed != needed:
            return place
    return None
